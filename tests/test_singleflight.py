"""A flight serves all who wait for it, whoever leaves."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.singleflight import Flight, FlightCancelled, SingleFlight, TooManyFlights
from tokenmw.testing import ManualClock

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="nobody")


@pytest.fixture
async def reported() -> Any:
    """What the event loop had to report, such as an exception that nobody retrieved."""
    loop = asyncio.get_running_loop()
    found: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: found.append(context))
    yield found
    gc.collect()  # tasks report when they are deleted
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert found == []


@pytest.fixture(params=["lazy", pytest.param("eager", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason=""))])
async def tasks(request: pytest.FixtureRequest) -> Any:
    """Both ways in which a loop may begin a task; eager ones begin (and may end) inside of `create_task`."""
    loop = asyncio.get_running_loop()
    if request.param == "eager":
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009  3.12 and later
    yield request.param
    loop.set_task_factory(None)


async def turns() -> None:
    """Give the loop to callbacks that are due."""
    for _ in range(5):
        await asyncio.sleep(0)


def flights(limit: int = 10, *, clock: Any = SYSTEM_CLOCK) -> SingleFlight[str]:
    """Make a group whose flights return text."""
    return SingleFlight(limit, clock=clock)


class Work:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        await self.go.wait()
        self.ended += 1
        return "done"


async def waited(flight: Flight[str]) -> str:
    """Wait as a request does."""
    await flight.wait()
    return flight.result()


@settings(max_examples=60, deadline=None)
@given(leaving=st.lists(st.sampled_from(["before", "during", "with the end", "never"]), min_size=1, max_size=12))
async def test_whoever_leaves_takes_only_himself_out(leaving: list[str]) -> None:
    """Any waiters are cancelled at any time: all others get the result of one run of the work."""
    group, work = flights(), Work()
    waiters = [asyncio.create_task(waited(group.join("k", work))) for _ in leaving]
    for moment in ("before", "during", "with the end"):
        if moment == "during":
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if moment == "with the end":
            work.go.set()
        for waiter, when in zip(waiters, leaving, strict=True):
            if when == moment:
                waiter.cancel()
    flight = group.get("k")
    assert flight is not None
    assert await flight.wait()
    ends = await asyncio.gather(*waiters, return_exceptions=True)
    assert (work.begun, work.ended) == (1, 1)
    for end, when in zip(ends, leaving, strict=True):
        assert isinstance(end, asyncio.CancelledError) if when != "never" else end == "done"
    assert len(group) == 0
    assert {} == flight._waiters


async def test_context_variables_of_the_first_caller_stay_with_him(tasks: str) -> None:
    """The work is everybody's: what one request has put into its context is not seen there."""
    seen: list[str] = []

    async def look() -> str:
        seen.append(REQUEST.get())
        await asyncio.sleep(0)
        REQUEST.set("the work")
        return REQUEST.get()

    token = REQUEST.set("first caller")
    try:
        flight = flights().join("k", look)
        assert await flight.wait()
        assert (seen, flight.result(), REQUEST.get()) == (["nobody"], "the work", "first caller")
    finally:
        REQUEST.reset(token)


async def test_failure_reaches_each_waiter_and_no_log(tasks: str, reported: list[Any]) -> None:
    """What the work raises is raised to all who wait, and the loop never reports it, not even if nobody waits."""

    async def fail() -> str:
        await asyncio.sleep(0)
        raise LookupError("broken")

    group = flights()
    ends = await asyncio.gather(*(waited(group.join("k", fail)) for _ in range(3)), return_exceptions=True)
    assert [type(end).__name__ for end in ends] == ["LookupError"] * 3
    group.join("unwatched", fail)
    await turns()
    assert len(group) == 0


async def test_close_cancels_the_work_and_wakes_the_waiters(tasks: str, reported: list[Any]) -> None:
    """They get FlightCancelled: nobody has cancelled them. A flight begun while closing is refused."""
    group, work = flights(), Work()
    late: list[type[Exception]] = []

    async def last_words() -> str:
        try:
            return await work()
        finally:
            with pytest.raises(TooManyFlights):
                group.join("late", work)
            late.append(TooManyFlights)

    waiters = [asyncio.create_task(waited(group.join("k", last_words))) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await group.close()
    ends = await asyncio.gather(*waiters, return_exceptions=True)
    assert [FlightCancelled] * 3 == [type(end) for end in ends]
    assert ([TooManyFlights], 0, 0) == (late, work.ended, len(group))
    with pytest.raises(TooManyFlights):
        group.join("k", work)


async def test_one_flight_more_than_the_limit_is_refused(tasks: str) -> None:
    """Joining one that is under way is always possible, and an ended one makes room."""
    group, work = flights(2), Work()
    one, _two = group.join("1", work), group.join("2", work)
    with pytest.raises(TooManyFlights):
        group.join("3", work)
    assert one is group.join("1", work)
    assert ("1" in group, "3" in group) == (True, False)
    work.go.set()
    assert await one.wait()
    await turns()
    assert len(group) == 0
    await group.join("3", work).wait()


async def test_impatient_waiter_goes_after_his_seconds() -> None:
    """`wait` tells whether the work has ended; the work itself goes on. The seconds are those of the clock."""
    clock = ManualClock()
    group, work = flights(clock=clock), Work()
    flight = group.join("k", work)
    assert flight.started == clock.monotonic()
    impatient = asyncio.create_task(flight.wait(3.0))
    patient = asyncio.create_task(flight.wait(5.0))  # by the flights' own clock
    endless = asyncio.create_task(flight.wait())
    early = asyncio.create_task(flight.wait(1_000.0))  # the work ends before his time does
    await clock.elapse(2.9)
    assert not impatient.done()
    await clock.elapse(0.2)
    assert (impatient.done(), await impatient, patient.done()) == (True, False, False)
    assert await flight.wait(0.0) is False
    assert await flight.wait(-1.0) is False
    await clock.elapse(2.0)
    assert (await patient, endless.done()) == (False, False)
    work.go.set()
    assert (await endless, await early) == (True, True)
    await asyncio.sleep(0)
    assert clock.sleepers == 0
    assert await flight.wait(0.0)


async def test_work_that_ends_at_once_leaves_nothing_behind(tasks: str) -> None:
    """With eager tasks it has ended before there is anything to wait for; the next caller begins anew."""
    runs: Iterator[int] = iter(range(10))

    async def immediate() -> str:
        return str(next(runs))

    group = flights()
    assert await waited(group.join("k", immediate)) == "0"
    await turns()
    assert len(group) == 0
    assert await waited(group.join("k", immediate)) == "1"


async def test_twenty_thousand_who_leave_do_not_hold_up_the_loop() -> None:
    """Leaving costs the same however many wait, so a crowd of them is gone in a moment."""
    group, work = flights(), Work()
    flight = group.join("k", work)
    waiters = [asyncio.create_task(waited(flight)) for _ in range(20_000)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    began = time.thread_time()  # of the processor, so that other programs do not count
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    took = time.thread_time() - began
    assert flight._waiters == {}
    work.go.set()
    assert await flight.wait()
    # A second is what the slowest test machine may take; with a scan of all waiters at each leaving it is many.
    assert took < 1.0
