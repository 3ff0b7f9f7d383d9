"""Redis was emptied: tokens and invalidations are told to it again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tokens.instance import Instance, keys_of
from tests.tokens.scripted import Scripted, Stage
from tests.tokens.world import World
from tokenmw.limits import Limits
from tokenmw.redis.token_store import Found
from tokenmw.testing import ManualClock


def mark_unshared(world: World, *numbers: int) -> None:
    """Let instances take it that Redis has lost what it held."""
    for number in numbers:
        one = world.instances[number]
        for entry in one.entries:
            entry.mark_unshared(one.clock.monotonic())


async def test_a_token_is_shared_again_without_a_request(world: World) -> None:
    """The entry was looked at a moment ago, and nobody uses it."""
    await world.get(0)
    await world.instances[0].housekeep()
    world.redis.flush()
    mark_unshared(world, 0)
    await world.instances[0].housekeep()
    assert "token-1" == (await world.get(1)).value
    assert 1 == len(world.stage.calls)


async def test_an_older_token_does_not_come_back(world: World) -> None:
    """Versions decide: the instance with the older one takes the newer one, whoever comes first."""
    for first, second in ((0, 1), (1, 0)):
        old = await world.get(0)
        world.clock.advance(60)
        await world.get(1)
        assert await world.instances[0].sync.invalidate(old)
        new = await world.get(0)
        world.redis.flush()
        mark_unshared(world, 0, 1)
        for number in (first, second):
            await world.instances[number].housekeep()
        world.clock.advance(31)
        for number in (1, 2):
            await world.get(number)  # in use, so it is compared
            await world.instances[number].housekeep()
        assert new.value == (await world.get(0)).value == (await world.get(1)).value == (await world.get(2)).value
        world.clock.advance(700)


async def test_an_invalidation_is_told_again(world: World) -> None:
    """Without it, an instance that still has the dead token would put it back."""
    token = await world.get(0)
    await world.get(1)
    world.clock.advance(60)
    one = world.instances[0]
    assert await one.sync.invalidate(token)
    world.redis.flush()
    mark_unshared(world, 0)
    await one.housekeep()
    _, dead = await world.stores[0].read(keys_of(Scripted(world.stage)))
    assert one.entry(Scripted(world.stage)).invalid_version == dead > 0
    mark_unshared(world, 1)
    await world.instances[1].housekeep()
    found, _ = await world.stores[0].read(keys_of(Scripted(world.stage)))
    assert found is None
    world.clock.advance(7200)
    mark_unshared(world, 0)
    assert not one.sync.is_due(one.entry(Scripted(world.stage)), world.clock.monotonic())


async def test_an_invalidation_is_told_again_though_nobody_has_asked_since(world: World) -> None:
    """Tidying up keeps it as long as the dead token would live, and no longer."""
    token = await world.get(0)
    await world.get(1)
    world.clock.advance(60)
    one = world.instances[0]
    assert await one.sync.invalidate(token)
    world.clock.advance(3600)
    one.entries.purge()
    world.redis.flush()
    mark_unshared(world, 0, 1)
    for number in (1, 0, 1):
        await world.instances[number].housekeep()
    found, _ = await world.stores[0].read(keys_of(Scripted(world.stage)))
    assert found is None
    world.clock.advance(3600)
    one.entries.purge()
    assert [] == list(one.entries)


async def test_what_was_read_before_redis_was_emptied_does_not_stand_for_what_is_there_now(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of a look says that a token is dead; by then Redis knows neither of that nor of one before."""
    one, store, keys = world.instances[0], world.stores[0], keys_of(Scripted(world.stage))
    first = await world.get(0)
    world.clock.advance(60)
    assert await one.sync.invalidate(first)
    second = await world.get(0)
    await world.get(1)
    world.clock.advance(60)
    assert await world.instances[1].sync.invalidate(await world.get(1))
    read = store.read

    async def late(*args: Any) -> tuple[Found | None, int]:
        answer = await read(*args)
        world.redis.flush()
        mark_unshared(world, 0)
        return answer

    monkeypatch.setattr(store, "read", late)
    entry = one.entry(Scripted(world.stage))
    await one.sync.compare(entry)
    monkeypatch.setattr(store, "read", read)
    await one.housekeep()
    assert second.value != (await world.get(0)).value
    assert entry.invalid_version == (await read(keys))[1] > 0


async def test_slots_kept_for_an_invalidation_are_bounded(world: World) -> None:
    """Promise 8: a month of invalidated tenants takes no more than any tenants."""
    async with Instance(world.clock, store=world.stores[0], limits=Limits(tokens=10)) as one:
        for number in range(50):
            await one.sync.invalidate_current(one.entry(Scripted(world.stage, secret=str(number))))
        world.clock.advance(1)
        one.entries.purge()
        assert 10 == len(one.entries)


async def test_without_redis_there_is_nobody_to_tell(clock: ManualClock, stage: Stage) -> None:
    """A entry is not kept for that."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        await one.manager.get(entry)
        await one.sync.invalidate_current(entry)
        clock.advance(1)
        one.entries.purge()
        assert [] == list(one.entries)
