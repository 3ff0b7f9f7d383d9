"""Tokens that an API rejected are dropped in all processes, and never adopted again."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from tests.tokens.instance import keys_of, settle
from tests.tokens.providers import ScriptedProvider
from tests.tokens.world import World
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import ClockMismatch, Found, Tombstoned
from tokenmw.values import MAX_LIFETIME


async def test_a_rejected_token_is_dropped_everywhere(world: World) -> None:
    """The instance with the report writes a tombstone; the others find it within 30 s of use."""
    tokens = [await world.get(number) for number in range(3)]
    world.clock.advance(60)
    assert await world.instances[0].sync.invalidate(tokens[0])
    assert "token-2" == (await world.get(0)).value
    for number in (1, 2):
        assert "token-1" == (await world.get(number)).value
        await world.instances[number].housekeep()
        await settle()
        assert "token-2" == (await world.get(number)).value
    assert 2 == len(world.endpoint.calls)


async def test_only_a_token_in_use_is_compared_with_redis(world: World) -> None:
    """A token is compared once in 30 s, however often it is used; an unused one causes no commands."""
    await world.get(0)
    instance = world.instances[0]
    entry = instance.entry(ScriptedProvider(world.endpoint))
    due: list[bool] = []
    for seconds in (29, 2, 31):
        await world.get(0)
        world.clock.advance(seconds)
        due.append(instance.sync.is_due(entry, world.clock.monotonic()))
        await instance.housekeep()
    world.clock.advance(3600)
    assert [False, True, True, False] == [*due, instance.sync.is_due(entry, world.clock.monotonic())]


async def test_a_late_report_about_an_old_token_is_ignored(world: World) -> None:
    """Many requests that were sent with the old token are rejected after the new one is there, and it stays."""
    token = await world.get(0)
    world.clock.advance(60)
    instance = world.instances[0]
    assert await instance.sync.invalidate(token)
    await world.get(0)
    world.clock.advance(60)
    for _ in range(100):
        assert not await instance.sync.invalidate(token)
    assert "token-2" == (await world.get(0)).value
    assert 2 == len(world.endpoint.calls)


async def test_an_api_that_always_rejects_does_not_make_every_request_fetch(world: World) -> None:
    """In an hour with one rejected request a second, the fetches back off as after failures."""
    instance = world.instances[0]
    for _ in range(3600):
        await instance.sync.invalidate(await world.get(0))
        world.clock.advance(1)
    assert len(world.endpoint.calls) <= 24


async def test_a_token_younger_than_five_seconds_is_not_dropped(world: World) -> None:
    """An API may reject it because it does not know it yet, which is no reason to fetch another one."""
    token = await world.get(0)
    world.clock.advance(4)
    assert not await world.instances[0].sync.invalidate(token)
    world.clock.advance(2)
    assert await world.instances[0].sync.invalidate(token)


async def test_a_rejection_while_redis_is_unavailable_is_uploaded_later(world: World) -> None:
    """The rejected token comes back neither from Redis nor from another instance."""
    tokens = [await world.get(number) for number in range(2)]
    world.clock.advance(60)
    world.redis.up = False
    assert await world.instances[0].sync.invalidate(tokens[0])
    assert "token-2" == (await world.get(0)).value
    world.redis.up = True
    await world.instances[0].housekeep()
    assert "token-1" == (await world.get(1)).value
    await world.instances[1].housekeep()
    await settle()
    assert "token-2" == (await world.get(1)).value
    assert "token-2" == (await world.get(2)).value


async def test_a_rejection_without_redis_reaches_the_others_even_if_nothing_was_fetched_since(world: World) -> None:
    """Housekeeping uploads the tombstone as long as the token would be valid."""
    tokens = [await world.get(number) for number in range(2)]
    world.clock.advance(60)
    world.redis.up = False
    assert await world.instances[0].sync.invalidate(tokens[0])
    await world.instances[0].housekeep()
    world.redis.up = True
    await world.instances[0].housekeep()
    await world.get(1)
    await world.instances[1].housekeep()
    await settle()
    assert "token-2" == (await world.get(1)).value


async def test_after_flushall_an_instance_that_has_the_token_uploads_it(world: World) -> None:
    """A token in use is uploaded again, so that no instance needs to fetch."""
    await world.get(0)
    world.redis.flush()
    world.clock.advance(31)
    await world.get(0)
    await world.instances[0].housekeep()
    assert "token-1" == (await world.get(1)).value
    assert 1 == len(world.endpoint.calls)


async def test_flushall_does_not_bring_a_rejected_token_back(world: World) -> None:
    """The tombstone is lost, but the instance that remembers the value as rejected never adopts it."""
    tokens = [await world.get(number) for number in range(2)]
    world.clock.advance(60)
    assert await world.instances[0].sync.invalidate(tokens[0])
    world.redis.flush()
    await world.get(1)
    await world.instances[1].housekeep()  # uploads token-1, which it does not know as rejected
    assert "token-2" == (await world.get(0)).value


@pytest.mark.parametrize("number", [0, 2])
async def test_a_late_reply_does_not_confirm_a_later_invalidation(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Redis has only the first tombstone, with a lower version and a shorter time, so the second is uploaded later."""
    instance, store = world.instances[number], world.stores[number]
    entry = instance.entry(ScriptedProvider(world.endpoint))
    token = await world.get(number)
    world.clock.advance(10)
    reply, write = asyncio.Event(), store.write_tombstone

    async def slow(*args: Any, **options: Any) -> Found | Tombstoned | ClockMismatch:
        answer = await write(*args, **options)
        await reply.wait()
        return answer

    async def busy(*_args: object, **_options: object) -> NoReturn:
        raise RedisUnavailable("busy")

    monkeypatch.setattr(store, "write_tombstone", slow)
    first = asyncio.create_task(instance.sync.invalidate(token))
    await settle()
    monkeypatch.setattr(store, "write_tombstone", busy)
    await instance.sync.invalidate_current(entry)
    reply.set()
    assert await first
    monkeypatch.setattr(store, "write_tombstone", write)
    await instance.housekeep()
    tomb = world.redis.get(keys_of(ScriptedProvider(world.endpoint)), "tomb")
    assert tomb is not None
    assert entry.invalid_version == tomb.version
    assert MAX_LIFETIME == pytest.approx(world.redis.left(tomb))
    assert not instance.sync.is_due(entry, world.clock.monotonic())


async def test_a_tombstone_is_sent_once_while_another_secrets_token_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored token is newer, and sealed by a secret that this instance lacks: sending again changes nothing."""
    token = await world.get(0)
    world.clock.advance(10)
    sent: list[int] = []

    async def sealed(*_args: object, version: int, **_options: object) -> NoReturn:
        sent.append(version)
        raise Unreadable("unknown-key")

    monkeypatch.setattr(world.stores[0], "write_tombstone", sealed)
    instance = world.instances[0]
    assert await instance.sync.invalidate(token)
    for _ in range(5):
        world.clock.advance(1)
        await instance.housekeep()
    assert [instance.entry(ScriptedProvider(world.endpoint)).invalid_version] == sent
