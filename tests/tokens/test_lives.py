"""Lives of all lengths, and providers that repeat their token."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.tokens.instance import Instance, SkewedClock, keys_of, settle
from tests.tokens.memory_store import MemoryStore
from tests.tokens.scripted import Scripted, Stage
from tests.tokens.world import World
from tokenmw.errors import TokenUnavailable
from tokenmw.testing import ManualClock
from tokenmw.values import Grant


async def test_a_repeated_token_is_not_asked_for_again_at_once(clock: ManualClock, stage: Stage) -> None:
    """The provider repeats its token until shortly before the end (WeChat's, QQ's way): few requests, no loop."""
    issued = clock.monotonic()

    async def same() -> Grant:
        left = 7200.0 - (clock.monotonic() - issued)
        if left > 300:
            return Grant("the-one", expires_in=int(left))
        return await stage.new()

    stage.answer = same
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        await one.manager.get(entry)
        while clock.monotonic() < issued + 7190:
            token = one.manager.fresh(entry)
            assert token is not None
            await settle(5)
            clock.advance(1)
        lefts = [7200 - (call - issued) for call in stage.calls]
        # At the window, and then at half of what remained each time, until the provider gives a new one.
        assert 1440 <= lefts[1] <= 1800
        assert lefts[1] / 2 == pytest.approx(lefts[2], abs=3)
        assert lefts[2] / 2 == pytest.approx(lefts[3], abs=3)
        assert 5 == len(lefts)
        assert "token-1" == (await one.manager.get(entry)).value


async def test_a_token_repeated_until_its_end_is_asked_for_once_a_minute_at_most(
    clock: ManualClock, stage: Stage
) -> None:
    """Where nobody has declared it: half of what remains would be asked for ever more often."""
    ends = clock.monotonic() + 7200.0

    async def same() -> Grant:
        return Grant("the-one", expires_in=ends - clock.monotonic())

    stage.answer = same
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        await one.manager.get(entry)
        while clock.monotonic() < ends - 11:
            assert one.manager.fresh(entry) is not None
            await settle(5)
            clock.advance(1)
    pauses = [later - sooner for sooner, later in pairwise(stage.calls)]
    assert 60.0 <= min(pauses) <= 62.0


async def test_a_token_repeated_until_its_end_is_waited_for_once(clock: ManualClock, stage: Stage) -> None:
    """WeCom's way: `renewal_window=0`, so nobody asks before the end, and then once."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage, renewal_window=0))
        first = await one.manager.get(entry)
        clock.advance(7199.9)
        assert first is one.manager.fresh(entry)
        await settle()
        assert 1 == len(stage.calls)
        clock.advance(0.2)
        assert one.manager.fresh(entry) is None
        assert "token-2" == (await one.manager.get(entry)).value


@pytest.mark.parametrize("life", [0.064, 1.0, 300.0, 7200.0, 10 * 365 * 86_400.0])
async def test_any_length_of_life_works(clock: ManualClock, stage: Stage, life: float) -> None:
    """From 64 ms to ten years (cut to 30 days): never expired, refreshed in time, two fetches for two lives."""
    stage.life = life
    held = min(life, 30 * 86_400.0)
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        first = await one.manager.get(entry)
        assert held == pytest.approx(first.expires_at - clock.time(), abs=1e-6)
        for _ in range(1000):
            token = one.manager.fresh(entry)
            assert token is not None
            assert clock.time() < token.expires_at
            await settle(5)
            clock.advance(held / 1000)
        assert 2 == len(stage.calls)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("window", [60, 300, 1800])
async def test_a_token_repeated_until_a_window_is_replaced_without_a_wait(
    clock: ManualClock, stage: Stage, window: int, *, declared: bool
) -> None:
    """QQ's minute, stable_token's five, Feishu's thirty: no request waits, whether the window is declared or not."""
    issued = {"at": clock.monotonic()}

    async def same() -> Grant:
        left = 7200.0 - (clock.monotonic() - issued["at"])
        if stage.issued and left > window:
            return Grant(stage.issued[-1], expires_in=int(left))
        issued["at"] = clock.monotonic()
        return await stage.new()

    stage.answer = same
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage, renewal_window=window if declared else None))
        first = await one.manager.get(entry)
        for _ in range(7195):
            clock.advance(1)
            assert one.manager.fresh(entry) is not None or not declared
            await settle(4)
        assert first != await one.manager.get(entry)
        assert len(stage.calls) <= (2 if declared else 9)


def suspended(world: World, seconds: float) -> Instance:
    """Return an instance whose machine is suspended so long in a fetch: its wall clock shows it, the other does not."""
    clock = SkewedClock(world.clock)

    async def long() -> Grant:
        grant = await world.stage.new()
        clock.wall += seconds
        return grant

    world.stage.answer = long
    return Instance(clock, store=MemoryStore(world.redis))


@pytest.mark.parametrize(("step", "left"), [(3000.0, 4200.0), (-3000.0, 7200.0)])
async def test_what_passed_while_a_machine_was_suspended_counts_for_the_others(
    world: World, step: float, left: float
) -> None:
    """Redis is told what is left by the stricter clock, not by one that stood still or was set back."""
    async with suspended(world, step) as one:
        token = await one.manager.get(one.entry(Scripted(world.stage)))
    found, _dead = await world.stores[0].read(keys_of(Scripted(world.stage)))
    assert found is not None
    assert token.value == found.record.value
    assert left == pytest.approx(found.left, abs=1e-3)


async def test_a_token_that_ended_while_a_machine_was_suspended_is_not_shared(world: World) -> None:
    """Not for a moment, and the lease is free for the next one."""
    async with suspended(world, 7200.0) as one:
        with pytest.raises(TokenUnavailable, match="already expired"):
            await one.manager.get(one.entry(Scripted(world.stage)))
    assert {} == world.redis.data


async def test_who_was_suspended_takes_what_another_has_got_meanwhile(world: World) -> None:
    """Its lease lapsed while it stood still."""
    async with suspended(world, 7300.0) as one:
        long = world.stage.answer

        async def overtaken() -> Grant:
            grant = await long()
            world.redis.delete(keys_of(Scripted(world.stage)), "lease")
            world.stage.answer = world.stage.new
            await world.get(0)
            return grant

        world.stage.answer = overtaken
        assert "token-2" == (await one.manager.get(one.entry(Scripted(world.stage)))).value
    assert 2 == len(world.stage.calls)


async def test_a_token_that_ended_and_was_declared_invalid_on_its_way_is_asked_for_again(world: World) -> None:
    """As any other that was declared invalid while it was fetched: who waits gets what comes after."""
    async with suspended(world, 7300.0) as one:
        entry = one.entry(Scripted(world.stage))
        long = world.stage.answer

        async def unwanted() -> Grant:
            grant = await long()
            await one.sync.invalidate_current(entry)
            world.stage.answer = world.stage.new
            return grant

        world.stage.answer = unwanted
        waiting = asyncio.create_task(one.manager.get(entry))
        await world.clock.elapse(1.0)
        assert "token-2" == (await waiting).value
