"""Single flight: one task for each key, and any number of waiters.

The task belongs to the owner of the `SingleFlight`, not to a request: it runs until it is done even if every waiter
leaves, and only `close` cancels it. Each waiter has a future of its own in a dict, and one callback of the task wakes
them all.

`asyncio.shield` is not used: each shield adds a callback to the task, and removes it with a scan of all of them, so
20 000 cancelled waiters block the event loop for seconds. Leaving a dict costs the same however many are in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from tokenmw.clock import Clock

__all__ = ["Flight", "FlightCancelled", "SingleFlight", "TooManyFlights"]

T = TypeVar("T")

_NUMBERS: Final = itertools.count(1)


class TooManyFlights(Exception):
    """Raised when a flight would exceed the bound."""


class FlightCancelled(Exception):
    """Raised instead of `CancelledError`, which would look as if the waiter itself had been cancelled."""


class Flight(Unpicklable, Generic[T]):
    """One task in progress, and its waiters.

    Attributes:
        started: When it began, by the monotonic clock.
        number: A number that no other flight of this process has.
    """

    __slots__ = ("_clock", "_loop", "_task", "_timer", "_waiters", "number", "started")

    def __init__(self, work: Coroutine[Any, Any, T], *, clock: Clock, wait_seconds: float | None = None) -> None:
        self.started = clock.monotonic()
        self.number = next(_NUMBERS)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[asyncio.Future[None], float] = {}  # in order of arrival, each with its time
        # An empty context: the context variables of the first request are not for the others.
        self._task = self._loop.create_task(work, context=contextvars.Context())
        # One timer task for all waiters: one for each would cost more than the wait.
        self._timer = None if wait_seconds is None else self._loop.create_task(self._wake_in_order(wait_seconds))

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiters)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until the task is done, for `seconds` at most. Return whether it is done.

        Without `seconds`, `SingleFlight(wait_seconds=…)` is the bound. A cancelled waiter removes only itself.
        """
        if self._task.done():
            return True
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters[waiter] = self._clock.monotonic()
        timer: asyncio.TimerHandle | asyncio.Task[None] | None = None
        if seconds is not None and self._clock is SYSTEM_CLOCK:
            timer = self._loop.call_later(seconds, _wake, waiter)  # a task would cost ten times as much
        elif seconds is not None:
            timer = self._loop.create_task(_wake_after(self._clock, seconds, waiter))
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)
            if timer is not None:
                timer.cancel()
        return self._task.done()

    def result(self) -> T:
        """Return what the task returned, or raise what it raised. Only after `wait` has returned True.

        Every caller gets the same exception object, so a caller that raises it on makes one of its own.

        Raises:
            FlightCancelled: The owner was closed.
        """
        if self._task.cancelled():
            raise FlightCancelled
        return self._task.result()

    async def _wake_in_order(self, wait_seconds: float) -> None:
        while True:
            now = self._clock.monotonic()
            due = now + wait_seconds  # the earliest time at which a waiter that arrives now must be woken
            for waiter, arrived in self._waiters.items():
                if arrived + wait_seconds > now:
                    due = arrived + wait_seconds
                    break
                _wake(waiter)  # it removes itself
            await self._clock.sleep(due - now)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for waiter in self._waiters:
            _wake(waiter)
        self._waiters.clear()


async def _wake_after(clock: Clock, seconds: float, waiter: asyncio.Future[None]) -> None:
    await clock.sleep(max(0.0, seconds))
    _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class SingleFlight(Unpicklable, Generic[T]):
    """The flights in progress: one for each key, and `limit` in all, not counting those that a flight itself needs.

    Args:
        limit: How many counted flights may be in progress.
        clock: For the waits.
        wait_seconds: How long a waiter waits at most; the flight goes on for those that arrived later.
    """

    __slots__ = ("_clock", "_counted", "_flights", "_limit", "_wait_seconds")

    def __init__(self, limit: int, *, clock: Clock, wait_seconds: float | None = None) -> None:
        self._limit = limit
        self._counted = 0
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._flights: dict[Hashable, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    @property
    def waiting(self) -> dict[Hashable, int]:
        """How many wait for each flight that any waits for."""
        return {key: flight.waiting for key, flight in self._flights.items() if flight.waiting}

    def get(self, key: Hashable) -> Flight[T] | None:
        """Return the flight in progress for a key, if there is one."""
        return self._flights.get(key)

    def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], *, counted: bool = True) -> Flight[T]:
        """Return the flight for a key; start one if there is none.

        Args:
            key: What is fetched.
            work: Makes the coroutine that fetches it.
            counted: False for a flight that another one waits for. If it were counted, the flights that fill the bound
                would prevent the one they all wait for.

        Raises:
            TooManyFlights: There is none, and `limit` others are in progress, or this object is closed.
        """
        flight = self._flights.get(key)
        if flight is not None:
            return flight
        if not self._limit or (counted and self._counted >= self._limit):
            raise TooManyFlights
        flight = Flight(work(), clock=self._clock, wait_seconds=self._wait_seconds)
        self._flights[key] = flight
        self._counted += counted

        def finish(task: asyncio.Task[T]) -> None:
            self._counted -= counted
            if self._flights.get(key) is flight:
                del self._flights[key]
            if not task.cancelled():
                task.exception()  # retrieved, so that the event loop never reports it
            flight._finish()

        flight._task.add_done_callback(finish)
        return flight

    async def close(self) -> None:
        """Cancel all flights and wait until they are done. No other can be started."""
        self._limit = 0
        flights = list(self._flights.values())
        tasks = {task for flight in flights for task in (flight._task, flight._timer) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
