"""The bounds of single flight: how many flights there may be, and how long a waiter waits."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.test_singleflight import Work, make_group, settle
from tokenmw.singleflight import SingleFlight, TooManyFlights
from tokenmw.testing import ManualClock


async def test_a_flight_that_another_one_needs_is_not_counted() -> None:
    """The flights that fill the limit can still start what they need, and that leaves the limit to the others."""
    group, work = make_group(2), Work()
    group.join("1", work)
    inner = group.join("needed by 1", work, counted=False)
    assert inner is group.join("needed by 1", work)
    group.join("2", work)
    group.join("needed by 2", work, counted=False)
    with pytest.raises(TooManyFlights):
        group.join("3", work)
    assert 4 == len(group)
    work.go.set()
    await inner.wait()
    await settle()
    again = Work()
    group.join("1", again)
    group.join("2", again)
    with pytest.raises(TooManyFlights):
        group.join("3", again)
    await group.close()
    with pytest.raises(TooManyFlights):
        group.join("needed by 1", again, counted=False)


async def test_each_waiter_waits_for_wait_seconds_from_its_arrival() -> None:
    """This holds for waiters that arrive after others were woken, however long the work goes on."""
    clock, work = ManualClock(), Work()
    flight = SingleFlight[str](1, clock=clock, wait_seconds=12.0).join("k", work)
    arrivals = (0.0, 0.0, 5.0, 11.9, 12.0, 20.0, 70.0)
    woken: dict[int, float] = {}

    async def wait(number: int) -> None:
        assert await flight.wait() is False
        woken[number] = clock.monotonic() - flight.started

    waiting: list[asyncio.Task[None]] = []
    for number, arrival in enumerate(arrivals):
        await clock.elapse(arrival - (clock.monotonic() - flight.started))
        waiting.append(asyncio.create_task(wait(number)))
    cancelled = asyncio.create_task(flight.wait())
    await clock.elapse(6.0)
    cancelled.cancel()
    last = asyncio.create_task(flight.wait())
    await clock.elapse(11.0)
    assert list(woken.values()) == pytest.approx([arrival + 12.0 for arrival in arrivals])
    work.go.set()
    assert await last is True
    await asyncio.gather(*waiting)
    await settle()
    assert (0, True) == (clock.sleepers, cancelled.cancelled())


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "timed out"])
async def test_a_crowd_leaves_a_flight_with_wait_seconds_without_blocking(*, cancelled: bool) -> None:
    """20 000 waiters, half of which arrived a second later, are cancelled or time out within a second."""
    clock, work = ManualClock(), Work()
    flight = SingleFlight[str](1, clock=clock, wait_seconds=12.0).join("k", work)
    waiters: list[asyncio.Task[bool]] = []
    for _ in range(2):
        waiters += [asyncio.create_task(flight.wait()) for _ in range(10_000)]
        await settle()
        clock.advance(1.0)
        await settle()
    started = time.thread_time()  # processor time, so that other programs do not count
    for waiter in waiters if cancelled else ():
        waiter.cancel()
    for _ in range(0 if cancelled else 2):
        clock.advance(10.0)
        await settle()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    took = time.thread_time() - started
    assert [cancelled] * 20_000 == [isinstance(result, asyncio.CancelledError) for result in results]
    assert not flight._waiters
    work.go.set()
    assert await flight.wait()
    # The slowest test machine may take a second.
    assert took < 1.0
