"""ManualClock: time moves only when a test moves it."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.testing import ManualClock, make_token


async def test_time_stands_still() -> None:
    """Both clocks stand still, however long a test takes."""
    clock = ManualClock(1_000_000.0)
    before = (clock.time(), clock.monotonic())
    await asyncio.sleep(0.01)
    assert before == (clock.time(), clock.monotonic())
    assert 1_000_000.0 == clock.time() != clock.monotonic()


def test_advance_moves_both_clocks() -> None:
    """Both clocks move by the same amount, with or without a running loop."""
    clock = ManualClock(1_000_000.0)
    monotonic = clock.monotonic()
    clock.advance(90.5)
    clock.advance(0)
    assert (1_000_090.5, monotonic + 90.5) == (clock.time(), clock.monotonic())


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_wall_clock_can_be_set_alone(step: float) -> None:
    """The wall clock can be set as by an operator or NTP; `monotonic` does not change."""
    clock = ManualClock(1_000_000.0)
    monotonic = clock.monotonic()
    clock.step_wall(step)
    assert (1_000_000.0 + step, monotonic) == (clock.time(), clock.monotonic())


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, -math.inf])
async def test_invalid_seconds_are_refused(seconds: float) -> None:
    """A negative or infinite number of seconds is an error and moves nothing."""
    clock = ManualClock()
    before = clock.monotonic()
    with pytest.raises(ValueError, match="finite number, zero or more"):
        clock.advance(seconds)
    with pytest.raises(ValueError, match="finite number, zero or more"):
        await clock.elapse(seconds)
    assert before == clock.monotonic()


async def test_sleeper_wakes_exactly_when_its_time_has_come() -> None:
    """A sleeper wakes when its time has come, not earlier."""
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await clock.elapse(9.999)
    assert not sleeper.done()
    assert 1 == clock.sleepers
    await clock.elapse(0.001)
    assert sleeper.done()
    assert 0 == clock.sleepers


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
async def test_sleeping_for_no_time_yields_once(seconds: float) -> None:
    """A sleep of zero or less is like `asyncio.sleep(0)`: the clock need not move."""
    await asyncio.wait_for(ManualClock().sleep(seconds), 5)


async def sleeper(clock: ManualClock, seconds: float, woken: list[tuple[float, float]], *, again: int = 1) -> None:
    """Sleep repeatedly, and record when each sleep ended."""
    for _ in range(again):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))


async def test_advance_wakes_in_the_order_of_time() -> None:
    """Sleepers wake in the order in which they are due; equal ones in the order in which they started."""
    clock = ManualClock()
    begin = clock.monotonic()
    woken: list[tuple[float, float]] = []
    tasks = [asyncio.create_task(sleeper(clock, seconds, woken)) for seconds in (5, 1, 3, 1, 4)]
    await asyncio.sleep(0)
    clock.advance(100)
    await asyncio.gather(*tasks)
    assert [(seconds, begin + 100) for seconds in (1, 1, 3, 4, 5)] == woken


async def test_elapse_stops_at_each_time() -> None:
    """Tasks that sleep repeatedly see the same times as with a real clock."""
    clock = ManualClock()
    begin = clock.monotonic()
    woken: list[tuple[float, float]] = []
    tasks = [
        asyncio.create_task(sleeper(clock, 2, woken, again=3)),
        asyncio.create_task(sleeper(clock, 3, woken, again=2)),
    ]
    await clock.elapse(6)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert [(2, 2), (3, 3), (2, 4), (3, 6), (2, 6)] == [(seconds, at - begin) for seconds, at in woken]
    assert begin + 6 == clock.monotonic()


async def test_elapse_lets_woken_tasks_run() -> None:
    """A woken task may await what is ready, and sleep again, within the same step."""
    clock = ManualClock()
    begin = clock.monotonic()
    at: list[float] = []

    async def worker() -> None:
        await clock.sleep(1)
        for _ in range(10):
            await asyncio.sleep(0)
        await clock.sleep(1)
        at.append(clock.monotonic() - begin)

    task = asyncio.create_task(worker())
    await clock.elapse(2)
    assert task.done()
    assert [2.0] == at


async def test_cancelled_sleepers_leave_no_trace() -> None:
    """Most time-outs are cancelled sleeps, so a cancelled sleeper is removed."""
    clock = ManualClock()
    tasks = [asyncio.create_task(clock.sleep(seconds)) for seconds in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.wait([tasks[0], tasks[2]])
    assert 1 == clock.sleepers
    await clock.elapse(10)
    assert [True, False, True] == [task.cancelled() for task in tasks]


async def test_sleeper_cancelled_as_it_wakes_stays_cancelled() -> None:
    """A cancellation is never lost."""
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_move_wakes_20_000_sleepers() -> None:
    """The clock is no bottleneck of a load test: this takes a fifth of a second, not minutes."""
    clock = ManualClock()
    tasks = [asyncio.create_task(clock.sleep(1 + number % 7)) for number in range(20_000)]
    await asyncio.sleep(0)
    assert 20_000 == clock.sleepers
    clock.advance(10)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert 0 == clock.sleepers


def test_clock_can_be_moved_from_another_thread() -> None:
    """Starlette's TestClient runs the application in another thread."""
    clock = ManualClock()
    sleeping = threading.Event()

    async def application() -> float:
        asyncio.get_running_loop().call_soon(sleeping.set)
        await clock.sleep(3600)
        return clock.time()

    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(application())), daemon=True)
    thread.start()
    assert sleeping.wait(5)
    clock.advance(3600)
    thread.join(5)
    assert [clock.time()] == found


def test_sleeper_of_a_closed_loop_is_ignored() -> None:
    """A test may close its loop while a task sleeps."""
    clock = ManualClock()
    loop = asyncio.new_event_loop()
    task = loop.create_task(clock.sleep(1))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    clock.advance(1)
    assert not task.done()
    task.get_coro().close()


def test_manual_clock_is_a_clock() -> None:
    """A ManualClock can be used wherever SYSTEM_CLOCK is."""
    clocks: list[Clock] = [ManualClock(), SYSTEM_CLOCK]
    assert ["ManualClock(time=1800000000.000, monotonic=1000.000)", "SYSTEM_CLOCK"] == [repr(one) for one in clocks]


def test_made_token_expires_by_the_clock_it_was_given() -> None:
    """A test chooses value, name, lifetime and extra fields of a token."""
    clock = ManualClock(1_000_000.0)
    token = make_token("t-1", provider="crm", expires_in=60, extra={"url": "u"}, clock=clock)
    assert ("t-1", "crm", 1_000_060.0, {"url": "u"}) == (
        token.value,
        token.provider,
        token.expires_at,
        dict(token.extra),
    )
    assert "Bearer test-token" == make_token().authorization
