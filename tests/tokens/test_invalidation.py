"""Tokens that an API refused: dropped by comparison, everywhere, and never taken back."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from tests.tokens.instance import keys_of, settle
from tests.tokens.scripted import Scripted
from tests.tokens.world import World
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import Found, Tombstoned
from tokenmw.values import MAX_LIFETIME


async def test_a_rejected_token_is_dropped_everywhere(world: World) -> None:
    """The instance that is told buries it; the others find that out within 30 s of use."""
    tokens = [await world.get(number) for number in range(3)]
    world.clock.advance(60)
    assert await world.instances[0].sync.invalidate(tokens[0])
    assert "token-2" == (await world.get(0)).value
    for number in (1, 2):
        assert "token-1" == (await world.get(number)).value
        await world.instances[number].housekeep()
        await settle()
        assert "token-2" == (await world.get(number)).value
    assert 2 == len(world.stage.calls)


async def test_only_a_token_in_use_is_compared_with_redis(world: World) -> None:
    """Once in 30 s, however often it is used; one that nobody asks for costs Redis nothing."""
    await world.get(0)
    one = world.instances[0]
    entry = one.entry(Scripted(world.stage))
    due: list[bool] = []
    for seconds in (29, 2, 31):
        await world.get(0)
        world.clock.advance(seconds)
        due.append(one.sync.is_due(entry, world.clock.monotonic()))
        await one.housekeep()
    world.clock.advance(3600)
    assert [False, True, True, False] == [*due, one.sync.is_due(entry, world.clock.monotonic())]


async def test_a_late_report_about_an_old_token_causes_nothing(world: World) -> None:
    """Many requests in flight with the old token fail at once; the new one stays."""
    token = await world.get(0)
    world.clock.advance(60)
    one = world.instances[0]
    assert await one.sync.invalidate(token)
    await world.get(0)
    world.clock.advance(60)
    for _ in range(100):
        assert not await one.sync.invalidate(token)
    assert "token-2" == (await world.get(0)).value
    assert 2 == len(world.stage.calls)


async def test_an_api_that_always_refuses_does_not_make_every_request_fetch(world: World) -> None:
    """An hour of refusals, one request a second: the fetches thin out like after failures."""
    one = world.instances[0]
    for _ in range(3600):
        await one.sync.invalidate(await world.get(0))
        world.clock.advance(1)
    assert len(world.stage.calls) <= 24


async def test_a_token_younger_than_five_seconds_is_not_dropped(world: World) -> None:
    """An API that has not heard of it yet is not a reason to fetch."""
    token = await world.get(0)
    world.clock.advance(4)
    assert not await world.instances[0].sync.invalidate(token)
    world.clock.advance(2)
    assert await world.instances[0].sync.invalidate(token)


async def test_a_rejection_while_redis_is_away_is_told_later(world: World) -> None:
    """The token does not come back from Redis or from another instance."""
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
    """Housekeeping tells Redis of it as long as the token would live."""
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


async def test_flushall_is_healed_by_who_still_has_the_token(world: World) -> None:
    """No fetch: the copies in use are offered again."""
    await world.get(0)
    world.redis.flush()
    world.clock.advance(31)
    await world.get(0)
    await world.instances[0].housekeep()
    assert "token-1" == (await world.get(1)).value
    assert 1 == len(world.stage.calls)


async def test_flushall_does_not_bring_a_rejected_token_back(world: World) -> None:
    """The tombstone is gone, but who knows the value as rejected never takes it, and buries it again."""
    tokens = [await world.get(number) for number in range(2)]
    world.clock.advance(60)
    assert await world.instances[0].sync.invalidate(tokens[0])
    world.redis.flush()
    await world.get(1)
    await world.instances[1].housekeep()  # offers token-1, which it does not know as rejected
    assert "token-2" == (await world.get(0)).value


@pytest.mark.parametrize("number", [0, 2])
async def test_a_late_reply_does_not_stand_for_a_later_invalidation(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Redis was told of the first one only, and of no later version or longer life: the second is told by and by."""
    one, store = world.instances[number], world.stores[number]
    entry = one.entry(Scripted(world.stage))
    token = await world.get(number)
    world.clock.advance(10)
    reply, bury = asyncio.Event(), store.write_tombstone

    async def slow(*args: Any, **options: Any) -> Found | Tombstoned:
        answer = await bury(*args, **options)
        await reply.wait()
        return answer

    async def busy(*_args: object, **_options: object) -> NoReturn:
        raise RedisUnavailable("busy")

    monkeypatch.setattr(store, "write_tombstone", slow)
    first = asyncio.create_task(one.sync.invalidate(token))
    await settle()
    monkeypatch.setattr(store, "write_tombstone", busy)
    await one.sync.invalidate_current(entry)
    reply.set()
    assert await first
    monkeypatch.setattr(store, "write_tombstone", bury)
    await one.housekeep()
    tomb = world.redis.get(keys_of(Scripted(world.stage)), "tomb")
    assert tomb is not None
    assert entry.invalid_version == tomb.version
    assert MAX_LIFETIME == pytest.approx(world.redis.left(tomb))
    assert not one.sync.is_due(entry, world.clock.monotonic())


async def test_an_invalidation_beside_anothers_sealed_token_is_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands there is newer, by a secret of theirs: that it cannot be read does not change within a second."""
    token = await world.get(0)
    world.clock.advance(10)
    told: list[int] = []

    async def sealed(*_args: object, version: int, **_options: object) -> NoReturn:
        told.append(version)
        raise Unreadable("unknown-key")

    monkeypatch.setattr(world.stores[0], "write_tombstone", sealed)
    one = world.instances[0]
    assert await one.sync.invalidate(token)
    for _ in range(5):
        world.clock.advance(1)
        await one.housekeep()
    assert [one.entry(Scripted(world.stage)).invalid_version] == told
