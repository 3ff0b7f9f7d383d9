"""A provider is invalidated: whatever token it has, and whatever it is asked for at that moment."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from tests.tokens.instance import Instance, SkewedClock, settle
from tests.tokens.scripted import Scripted, Stage
from tests.tokens.world import World
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.testing import ManualClock
from tokenmw.values import Grant


async def test_invalidating_whatever_is_there_asks_anew_everywhere(world: World) -> None:
    """An operator's wish is fulfilled at once, after failures, too."""
    for number in range(2):
        await world.get(number)
    one = world.instances[2]
    await one.sync.invalidate_current(one.entry(Scripted(world.stage)))
    assert "token-2" == (await world.get(2)).value
    world.clock.advance(31)
    await world.get(1)
    await world.instances[1].housekeep()
    await settle()
    assert "token-2" == (await world.get(1)).value
    world.stage.fails(CredentialRejected("wrong secret"))
    world.clock.advance(7200)
    with pytest.raises(CredentialRejected):
        await world.get(0)
    world.stage.answer = world.stage.new
    first = world.instances[0]
    await first.sync.invalidate_current(first.entry(Scripted(world.stage)))
    assert "token-3" == (await world.get(0)).value


@pytest.mark.parametrize("redis", ["none", "away"])
async def test_a_token_that_is_being_fetched_is_dropped_as_well(world: World, redis: str) -> None:
    """What was asked for before the operator's wish is not what the operator wants; who waits gets what comes after."""
    world.redis.up = False
    async with Instance(world.clock, store=None if redis == "none" else world.stores[0]) as one:
        entry = one.entry(Scripted(world.stage))
        world.stage.takes(2.0)
        waiting = asyncio.create_task(one.manager.get(entry))
        await settle()
        await world.clock.elapse(1.0)
        await one.sync.invalidate_current(entry)
        await world.clock.elapse(1.0)
        await settle()
        assert not waiting.done()
        await world.clock.elapse(2.0)
        assert "token-2" == (await waiting).value == (await one.manager.get(entry)).value
    assert 2 == len(world.stage.calls)


async def test_invalidations_without_end_let_nobody_wait_without_end(clock: ManualClock, stage: Stage) -> None:
    """They come faster than the provider answers: after 12 s that is a failure, for who joins later than that, too."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        stage.takes(4.5)
        first = asyncio.create_task(one.manager.get(entry))
        for _ in range(13):
            await clock.elapse(0.5)
            await one.sync.invalidate_current(entry)
            await clock.elapse(0.5)
        late = asyncio.create_task(one.manager.get(entry))
        await clock.elapse(0.6)
        with pytest.raises(TokenUnavailable, match="still being fetched after 12 s"):
            await first
        with pytest.raises(TokenUnavailable, match="each token was invalidated"):
            await asyncio.wait_for(late, 5)
        assert not one.manager.refreshing(entry)
    assert 3 == len(stage.calls)


async def test_a_fetch_under_a_lease_is_dropped_though_the_token_before_has_ended(world: World) -> None:
    """The tombstone lives as long as what it is for, not as long as what stood there before."""
    for number in range(2):
        await world.get(number)
    world.clock.advance(7201)
    world.stage.takes(1.0)
    asking = asyncio.create_task(world.get(1))
    await world.clock.elapse(0.5)
    one = world.instances[0]
    await one.sync.invalidate_current(one.entry(Scripted(world.stage)))
    await world.clock.elapse(3.0)
    assert "token-3" == (await asking).value == (await world.get(0)).value


@pytest.mark.parametrize("second", ["provider", "token"])
async def test_a_second_invalidation_does_not_shorten_the_first(world: World, second: str) -> None:
    """Redis is away, and comes back when the first one's token would still be offered by who has it."""
    world.stage.life = 86_400.0
    for number in range(2):
        await world.get(number)
    world.redis.up = False
    one = world.instances[0]
    entry = one.entry(Scripted(world.stage))
    await one.sync.invalidate_current(entry)
    if second == "provider":
        await one.sync.invalidate_current(entry)
    else:
        world.stage.life = 100.0
        token = await world.get(0)
        world.clock.advance(10)
        assert await one.sync.invalidate(token)
    world.clock.advance(40_000)
    world.redis.up = True
    await one.housekeep()
    await world.get(1)
    await world.instances[1].housekeep()
    await settle()
    assert "token-1" != (await world.get(1)).value


async def test_what_was_asked_for_without_redis_does_not_come_back_hours_later(world: World) -> None:
    """Nobody knows how long a token will live that another process is asking for: it may be the longest life."""
    world.stage.life = 86_400.0
    world.stores[2].cut = True
    world.stage.takes(2.0)
    asking = asyncio.create_task(world.get(2))
    await world.clock.elapse(1.0)
    one = world.instances[0]
    await one.sync.invalidate_current(one.entry(Scripted(world.stage)))
    await world.clock.elapse(1.0)
    assert "token-1" == (await asking).value
    world.clock.advance(40_000)
    world.stores[2].cut = False
    await world.instances[2].housekeep()
    assert "token-2" == (await world.get(0)).value == (await world.get(2)).value


@pytest.mark.parametrize("redis", ["none", "away", "lost"])
async def test_a_version_ahead_of_the_clock_is_dropped_as_well(world: World, redis: str) -> None:
    """The wall clock is set back during the fetch, or the lease's version was by a server whose clock is ahead."""
    clock = SkewedClock(world.clock)
    world.redis.wall = 300.0
    world.redis.up = redis == "lost"
    async with Instance(clock, store=None if redis == "none" else world.stores[0]) as one:
        entry = one.entry(Scripted(world.stage))
        world.stage.takes(2.0)
        waiting = asyncio.create_task(one.manager.get(entry))
        await world.clock.elapse(1.0)
        world.redis.up = False
        clock.wall -= 60.0
        await one.sync.invalidate_current(entry)
        await world.clock.elapse(3.5)
        assert "token-2" == (await waiting).value == (await one.manager.get(entry)).value


async def test_a_lease_ahead_of_the_servers_clock_is_dropped_as_well(world: World) -> None:
    """An instance whose clock is ahead has handed a token in: leases are above it, and above the server's time."""
    await world.instances[1].sync.hand_in(
        world.instances[1].entry(Scripted(world.stage)), Grant("handed-in", expires_in=7200)
    )
    assert {"handed-in"} == {(await world.get(number)).value for number in (0, 2)}
    first, last = world.instances[0], world.instances[2]
    await last.sync.invalidate_current(last.entry(Scripted(world.stage)))
    world.stage.takes(1.0)
    asking = asyncio.create_task(world.get(2))
    await world.clock.elapse(0.5)
    await first.sync.invalidate_current(first.entry(Scripted(world.stage)))
    await world.clock.elapse(2.0)
    assert "token-2" == (await asking).value == (await world.get(0)).value


async def test_a_lease_is_above_what_was_declared_invalid_since_the_flight_began(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis could not be told and its clock is behind: asked for below that, token after token would be in vain."""

    async def busy(*_args: object, **_options: object) -> NoReturn:
        raise RedisUnavailable("busy")

    one = world.instances[1]
    monkeypatch.setattr(world.stores[1], "write_tombstone", busy)
    world.stage.takes(1.0)
    asking = asyncio.create_task(world.get(1))
    await world.clock.elapse(0.5)
    await one.sync.invalidate_current(one.entry(Scripted(world.stage)))
    await world.clock.elapse(5.0)
    assert "token-2" == (await asking).value
    assert 2 == len(world.stage.calls)
