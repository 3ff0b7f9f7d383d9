"""Tokens in one process: at once while fresh, one flight when not, and never an expired one."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.scripted import Needy, Scripted, Stage
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.testing import ManualClock
from tokenmw.values import Grant, Token


async def test_a_fresh_token_is_returned_without_asking_again(clock: ManualClock, stage: Stage) -> None:
    """Promise 3: no provider, no await that waits, while the token is good."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        first = await one.manager.get(entry)
        clock.advance(7200 - 1801)
        assert first is await one.manager.get(entry)
        assert first is one.manager.fresh(entry)
        await settle()
        assert 1 == len(stage.calls)


async def test_an_aging_token_is_served_while_one_refresh_runs(clock: ManualClock, stage: Stage) -> None:
    """A thousand requests in the refresh window cause one fetch and wait for nothing."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        first = await one.manager.get(entry)
        stage.takes(2.0)
        clock.advance(7200 - 1400)  # within [E - W, E - 0.8 W] = [1800, 1440] before the end
        for _ in range(1000):
            assert first is one.manager.fresh(entry)
        await settle()
        assert 2 == len(stage.calls)
        assert first is one.manager.fresh(entry)
        await clock.elapse(2.0)
        assert "token-2" == (await one.manager.get(entry)).value
        assert 2 == len(stage.calls)


async def test_the_refresh_is_drawn_once_and_spread(clock: ManualClock, stage: Stage) -> None:
    """Instances refresh at different times in the first fifth of the window, and none before it."""
    draws: list[float] = []
    for _ in range(200):
        async with Instance(clock) as one:
            entry = one.entry(Scripted(stage))
            await one.manager.get(entry)
            assert entry.current is not None
            draws.append(entry.current.expires_mono - entry.current.refresh_mono)
            assert entry.current.expires_wall - entry.current.refresh_wall == pytest.approx(draws[-1])
    assert 1440.0 <= min(draws) < 1500.0
    assert 1740.0 < max(draws) <= 1800.0


async def test_an_expired_token_is_waited_for_by_all_in_one_flight(clock: ManualClock, stage: Stage) -> None:
    """Nobody gets the old one, and the provider is asked once."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        await one.manager.get(entry)
        clock.advance(7200 - 9)  # less than S = 10 s before the end
        assert one.manager.fresh(entry) is None
        stage.takes(1.0)
        waiting = [asyncio.create_task(one.manager.get(entry)) for _ in range(100)]
        await settle()
        await clock.elapse(1.0)
        assert {"token-2"} == {token.value for token in await asyncio.gather(*waiting)}
        assert 2 == len(stage.calls)


@pytest.mark.parametrize("step", [7300.0, -7300.0])
async def test_the_stricter_clock_counts(clock: ManualClock, stage: Stage, step: float) -> None:
    """A wall clock set forward ends a token; set back, it does not lengthen one."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        await one.manager.get(entry)
        clock.step_wall(step)
        assert (one.manager.fresh(entry) is None) == (step > 0)
        clock.advance(7195)
        assert one.manager.fresh(entry) is None
        assert "token-2" == (await one.manager.get(entry)).value


async def test_cancelled_clients_do_not_end_the_fetch(clock: ManualClock, stage: Stage) -> None:
    """Clients that give up after 1 s on a provider that takes 2 s cause one fetch, not one each."""
    async with Instance(clock) as one:
        entry = one.entry(Scripted(stage))
        stage.takes(2.0)
        for _ in range(2):
            waiting = [asyncio.create_task(one.manager.get(entry)) for _ in range(50)]
            await settle()
            await clock.elapse(0.9)
            for task in waiting:
                task.cancel()
            await settle()
        await clock.elapse(0.3)
        assert "token-1" == (await one.manager.get(entry)).value
        assert 1 == len(stage.calls)


async def test_the_fetch_sees_nothing_of_the_requests_context(clock: ManualClock, stage: Stage) -> None:
    """What the first request put into context variables is not the others' business."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen = []

    async def look() -> Grant:
        seen.append(variable.get())
        return await stage.new()

    stage.answer = look
    async with Instance(clock) as one:
        variable.set("the first request's")
        await one.manager.get(one.entry(Scripted(stage)))
    assert ["nothing"] == seen


async def test_flights_are_bounded(clock: ManualClock, stage: Stage) -> None:
    """One more than the bound is refused at once, with the option's name."""
    async with Instance(clock, limits=Limits(flights=3)) as one:
        stage.takes(1.0)
        waiting = [asyncio.create_task(one.manager.get(one.entry(Scripted(stage, secret=str(n))))) for n in range(3)]
        await settle()
        with pytest.raises(TokenUnavailable, match="flights=3"):
            await one.manager.get(one.entry(Scripted(stage, secret="one more")))
        await clock.elapse(1.0)
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("tenants", [9, 10, 15])
async def test_a_bound_full_of_tenants_keeps_none_from_the_apps_token(clock: ManualClock, tenants: int) -> None:
    """What they all need has a place beside them; as many as the bound allows have their tokens."""
    app, stage = Stage(clock), Stage(clock)
    app.takes(1.0)
    async with Instance(clock, limits=Limits(flights=10)) as one:
        entries = [one.entry(Needy(stage, Scripted(app), secret=str(number))) for number in range(tenants)]
        waiting = [asyncio.create_task(one.manager.get(entry)) for entry in entries]
        await settle()
        await clock.elapse(1.0)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert min(tenants, 10) == len(stage.issued) == len([end for end in ends if isinstance(end, Token)])
    assert all("flights=10" in str(end) for end in ends if not isinstance(end, Token))
    assert 1 == len(app.calls)


async def test_slots_are_bounded_and_purged(clock: ManualClock, stage: Stage) -> None:
    """Promise 8: tenants come and go, and what they leave goes, too; named ones stay."""
    async with Instance(clock, limits=Limits(tokens=10)) as one:
        named = one.entries.add_named(Scripted(stage, secret="named"), "named")
        for number in range(50):
            await one.manager.get(one.entry(Scripted(stage, secret=str(number))))
        assert 11 == len(one.entries)
        clock.advance(7300)
        one.entries.purge()
        assert [named] == list(one.entries)


async def test_a_slot_that_made_room_during_its_fetch_is_found_again(clock: ManualClock, stage: Stage) -> None:
    """Whoever asks meanwhile gets what is fetched, and whoever asks after him. The bound stays."""
    async with Instance(clock, limits=Limits(tokens=3)) as one:
        stage.takes(1.0)
        waiting: list[asyncio.Task[Token]] = []
        for name in ("0", "1", "2", "3", "0", "1", "0"):
            waiting.append(asyncio.create_task(one.manager.get(one.entry(Scripted(stage, secret=name)))))
            await settle(5)
            assert 3 >= len(one.entries)
        await clock.elapse(1.0)
        tokens = await asyncio.gather(*waiting)
        assert tokens[0] is tokens[4] is tokens[6] is await one.manager.get(one.entry(Scripted(stage, secret="0")))
        assert tokens[1] is tokens[5]
        assert 4 == len(stage.calls)
        named = one.entry(Scripted(stage, secret="5"))
        named_too = asyncio.create_task(one.manager.get(named))
        await settle(5)
        for number in range(6, 10):
            one.entry(Scripted(stage, secret=str(number)))
        assert named is one.entries.add_named(Scripted(stage, secret="5"), "five")
        await clock.elapse(1.0)
        assert await named_too is one.manager.fresh(named)


async def test_housekeeping_does_not_change_which_slot_makes_room(clock: ManualClock, stage: Stage) -> None:
    """The tenant that asks all the time stays, however many others come between two of its requests."""
    async with Instance(clock, limits=Limits(tokens=3)) as one:
        busy = one.entry(Scripted(stage, secret="busy"))
        await one.manager.get(busy)
        for number in range(10):
            await one.manager.get(one.entry(Scripted(stage, secret=str(number))))
            assert busy is one.entry(Scripted(stage, secret="busy"))
            await one.housekeep()
            one.entries.purge()


async def test_closing_ends_what_is_under_way(clock: ManualClock, stage: Stage) -> None:
    """Waiters get an error, not a cancellation that nobody asked for."""
    async with Instance(clock) as one:
        stage.takes(3.0)
        waiting = asyncio.create_task(one.manager.get(one.entry(Scripted(stage))))
        await settle()
    with pytest.raises(TokenUnavailable):
        await waiting
    assert 0 == clock.sleepers


async def test_an_exclusive_provider_is_not_asked_without_a_lease(clock: ManualClock, stage: Stage) -> None:
    """Unless the program says that it is the only process."""
    async with Instance(clock) as one:
        with pytest.raises(TokenUnavailable, match="lease"):
            await one.manager.get(one.entry(Scripted(stage, exclusive=True)))
        assert [] == stage.calls
    async with Instance(clock, single=True) as one:
        assert "token-1" == (await one.manager.get(one.entry(Scripted(stage, exclusive=True)))).value
