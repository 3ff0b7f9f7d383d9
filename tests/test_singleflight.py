"""A flight serves all its waiters, whichever of them are cancelled."""

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

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


@pytest.fixture
async def reported() -> Any:
    """Fail the test if the event loop reports anything, such as an exception that was not retrieved."""
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
    """Run the test with lazy tasks and with eager ones, which start (and may be done) inside `create_task`."""
    loop = asyncio.get_running_loop()
    if request.param == "eager":
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009  3.12 and later
    yield request.param
    loop.set_task_factory(None)


async def settle() -> None:
    """Run the callbacks that are ready."""
    for _ in range(5):
        await asyncio.sleep(0)


def make_group(limit: int = 10, *, clock: Any = SYSTEM_CLOCK) -> SingleFlight[str]:
    """Make a `SingleFlight` whose flights return text."""
    return SingleFlight(limit, clock=clock)


class Work:
    """Work that is done when the test sets `go`, with counts of its starts and ends."""

    def __init__(self) -> None:
        self.started = self.finished = 0
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.started += 1
        await self.go.wait()
        self.finished += 1
        return "done"


async def wait_for_result(flight: Flight[str]) -> str:
    """Wait for a flight as a request does."""
    await flight.wait()
    return flight.result()


@settings(max_examples=60, deadline=None)
@given(cancelled_when=st.lists(st.sampled_from(["before", "during", "at the end", "never"]), min_size=1, max_size=12))
async def test_a_cancelled_waiter_removes_only_itself(cancelled_when: list[str]) -> None:
    """Whichever waiters are cancelled, at any time, all others get the result of one run of the work."""
    group, work = make_group(), Work()
    waiters = [asyncio.create_task(wait_for_result(group.join("k", work))) for _ in cancelled_when]
    for moment in ("before", "during", "at the end"):
        if moment == "during":
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if moment == "at the end":
            work.go.set()
        for waiter, when in zip(waiters, cancelled_when, strict=True):
            if when == moment:
                waiter.cancel()
    flight = group.get("k")
    assert flight is not None
    assert await flight.wait()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert (work.started, work.finished) == (1, 1)
    for result, when in zip(results, cancelled_when, strict=True):
        assert isinstance(result, asyncio.CancelledError) if when != "never" else result == "done"
    assert len(group) == 0
    assert {} == flight._waiters


async def test_the_work_does_not_see_the_context_variables_of_the_first_caller(tasks: str) -> None:
    """The work serves all callers, so it runs in an empty context."""
    values: list[str] = []

    async def read() -> str:
        values.append(REQUEST.get())
        await asyncio.sleep(0)
        REQUEST.set("the work")
        return REQUEST.get()

    token = REQUEST.set("first caller")
    try:
        flight = make_group().join("k", read)
        assert await flight.wait()
        assert (values, flight.result(), REQUEST.get()) == (["none"], "the work", "first caller")
    finally:
        REQUEST.reset(token)


async def test_a_failure_is_raised_to_each_waiter(tasks: str, reported: list[Any]) -> None:
    """The event loop never reports it, not even if nothing waits for the flight."""

    async def fail() -> str:
        await asyncio.sleep(0)
        raise LookupError("broken")

    group = make_group()
    results = await asyncio.gather(*(wait_for_result(group.join("k", fail)) for _ in range(3)), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["LookupError"] * 3
    group.join("unwatched", fail)
    await settle()
    assert len(group) == 0


async def test_close_cancels_the_work_and_wakes_the_waiters(tasks: str, reported: list[Any]) -> None:
    """They get `FlightCancelled`, as they were not cancelled themselves. A flight started while closing is refused."""
    group, work = make_group(), Work()
    late: list[type[Exception]] = []

    async def cleanup() -> str:
        try:
            return await work()
        finally:
            with pytest.raises(TooManyFlights):
                group.join("late", work)
            late.append(TooManyFlights)

    waiters = [asyncio.create_task(wait_for_result(group.join("k", cleanup))) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await group.close()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [FlightCancelled] * 3 == [type(result) for result in results]
    assert ([TooManyFlights], 0, 0) == (late, work.finished, len(group))
    with pytest.raises(TooManyFlights):
        group.join("k", work)


async def test_a_flight_beyond_the_limit_is_refused(tasks: str) -> None:
    """Joining one in progress is always possible, and one that is done does not count any more."""
    group, work = make_group(2), Work()
    one, _two = group.join("1", work), group.join("2", work)
    with pytest.raises(TooManyFlights):
        group.join("3", work)
    assert one is group.join("1", work)
    assert ("1" in group, "3" in group) == (True, False)
    work.go.set()
    assert await one.wait()
    await settle()
    assert len(group) == 0
    await group.join("3", work).wait()


async def test_a_wait_ends_after_its_seconds() -> None:
    """`wait` returns whether the work is done, after its own seconds by the flights' clock; the work goes on."""
    clock = ManualClock()
    group, work = make_group(clock=clock), Work()
    flight = group.join("k", work)
    assert flight.started == clock.monotonic()
    short = asyncio.create_task(flight.wait(3.0))
    longer = asyncio.create_task(flight.wait(5.0))
    unbounded = asyncio.create_task(flight.wait())
    done_first = asyncio.create_task(flight.wait(1_000.0))  # the work is done before this time
    await clock.elapse(2.9)
    assert not short.done()
    await clock.elapse(0.2)
    assert (short.done(), await short, longer.done()) == (True, False, False)
    assert await flight.wait(0.0) is False
    assert await flight.wait(-1.0) is False
    await clock.elapse(2.0)
    assert (await longer, unbounded.done()) == (False, False)
    work.go.set()
    assert (await unbounded, await done_first) == (True, True)
    await asyncio.sleep(0)
    assert clock.sleepers == 0
    assert await flight.wait(0.0)


async def test_work_that_is_done_immediately_leaves_nothing_behind(tasks: str) -> None:
    """An eager task is done before there is anything to wait for; the next caller starts another one."""
    runs: Iterator[int] = iter(range(10))

    async def immediate() -> str:
        return str(next(runs))

    group = make_group()
    assert await wait_for_result(group.join("k", immediate)) == "0"
    await settle()
    assert len(group) == 0
    assert await wait_for_result(group.join("k", immediate)) == "1"


async def test_twenty_thousand_cancelled_waiters_do_not_block_the_event_loop() -> None:
    """Removing a waiter costs the same however many there are."""
    group, work = make_group(), Work()
    flight = group.join("k", work)
    waiters = [asyncio.create_task(wait_for_result(flight)) for _ in range(20_000)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    started = time.thread_time()  # processor time, so that other programs do not count
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    took = time.thread_time() - started
    assert flight._waiters == {}
    work.go.set()
    assert await flight.wait()
    # The slowest test machine may take a second; a scan of all waiters at each removal would take many.
    assert took < 1.0
