"""Many flights side by side: how many there may be, and how long somebody waits for one at most."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.test_singleflight import Work, flights, turns
from tokenmw.singleflight import SingleFlight, TooManyFlights
from tokenmw.testing import ManualClock


async def test_a_flight_that_another_one_needs_is_not_counted() -> None:
    """Else those that need it would take the place of what they need. It takes no place of others, either."""
    group, work = flights(2), Work()
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
    await turns()
    again = Work()
    group.join("1", again)
    group.join("2", again)
    with pytest.raises(TooManyFlights):
        group.join("3", again)
    await group.close()
    with pytest.raises(TooManyFlights):
        group.join("needed by 1", again, counted=False)


async def test_everybody_waits_for_so_many_seconds_from_when_he_came() -> None:
    """Also who comes when others have given up already, however long the work goes on."""
    clock, work = ManualClock(), Work()
    flight = SingleFlight[str](1, clock=clock, wait_seconds=12.0).join("k", work)
    came = (0.0, 0.0, 5.0, 11.9, 12.0, 20.0, 70.0)
    gone: dict[int, float] = {}

    async def wait(number: int) -> None:
        assert await flight.wait() is False
        gone[number] = clock.monotonic() - flight.started

    waiting: list[asyncio.Task[None]] = []
    for number, moment in enumerate(came):
        await clock.elapse(moment - (clock.monotonic() - flight.started))
        waiting.append(asyncio.create_task(wait(number)))
    leaving = asyncio.create_task(flight.wait())
    await clock.elapse(6.0)
    leaving.cancel()
    last = asyncio.create_task(flight.wait())
    await clock.elapse(11.0)
    assert list(gone.values()) == pytest.approx([moment + 12.0 for moment in came])
    work.go.set()
    assert await last is True
    await asyncio.gather(*waiting)
    await turns()
    assert (0, True) == (clock.sleepers, leaving.cancelled())


@pytest.mark.parametrize("leaving", [True, False], ids=["cancelled", "out of patience"])
async def test_a_crowd_goes_from_a_flight_with_patience_in_a_moment(*, leaving: bool) -> None:
    """20 000 at once, whether they leave or are sent away; half of them came a second later."""
    clock, work = ManualClock(), Work()
    flight = SingleFlight[str](1, clock=clock, wait_seconds=12.0).join("k", work)
    waiters: list[asyncio.Task[bool]] = []
    for _ in range(2):
        waiters += [asyncio.create_task(flight.wait()) for _ in range(10_000)]
        await turns()
        clock.advance(1.0)
        await turns()
    began = time.thread_time()  # of the processor, so that other programs do not count
    for waiter in waiters if leaving else ():
        waiter.cancel()
    for _ in range(0 if leaving else 2):
        clock.advance(10.0)
        await turns()
    ends = await asyncio.gather(*waiters, return_exceptions=True)
    took = time.thread_time() - began
    assert [leaving] * 20_000 == [isinstance(end, asyncio.CancelledError) for end in ends]
    assert not flight._waiters
    work.go.set()
    assert await flight.wait()
    # As with those who leave a flight without: a second is what the slowest test machine may take.
    assert took < 1.0
