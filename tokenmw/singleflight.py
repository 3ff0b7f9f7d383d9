"""One task that many wait for.

The task belongs to whoever owns the `SingleFlight`, not to a request: it runs to its end whoever leaves, and only
`close` cancels it. Each waiter has a future of its own in a dict, and one callback of the task wakes them all.

`asyncio.shield` is not used: each shield adds a callback to the task and takes it off again with a scan of all of
them, so 20 000 cancelled waiters block the loop for seconds. Leaving a dict costs the same however many are in it.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from tokenmw.clock import Clock

__all__ = ["Flight", "FlightCancelled", "SingleFlight", "TooManyFlights"]

T = TypeVar("T")


class TooManyFlights(Exception):
    """Raised when a flight would be one more than the bound allows."""


class FlightCancelled(Exception):
    """Raised instead of `CancelledError`, which would look as if the waiter itself had been cancelled."""


class Flight(Generic[T]):
    """One task under way, and those who wait for it.

    Attributes:
        started: When it began, by the monotonic clock.
        about: What whoever began it wants to find again while it is under way.
    """

    __slots__ = ("_bell", "_clock", "_loop", "_task", "_waiters", "about", "started")

    def __init__(
        self, work: Coroutine[Any, Any, T], *, clock: Clock, patience: float | None = None, about: Any = None
    ) -> None:
        self.started = clock.monotonic()
        self.about = about
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # In the order in which they came, and when.
        self._waiters: dict[asyncio.Future[None], float] = {}
        # An empty context: what the first request put into context variables is not the others' business.
        self._task = self._loop.create_task(work, context=contextvars.Context())
        # One for all waiters: a timer for each would cost more than the waiting.
        self._bell = None if patience is None else self._loop.create_task(self._ring_in_turn(patience))

    async def wait(self, seconds: float | None = None, *, clock: Clock | None = None) -> bool:
        """Wait until the task has ended, for so many seconds at most. Return whether it has ended.

        A cancelled waiter takes only itself out. The seconds are those of the flight's clock, or of `clock`.
        """
        if self._task.done():
            return True
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters[waiter] = self._clock.monotonic()
        timer: asyncio.Task[None] | None = None
        if seconds is not None:
            timer = self._loop.create_task(_ring(clock or self._clock, seconds, waiter))
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)
            if timer is not None:
                timer.cancel()
        return self._task.done()

    def result(self) -> T:
        """Return what the task returned, or raise what it raised. Only after `wait` said that it has ended.

        All who call it are raised the same exception object: whoever hands it on makes one of his own.

        Raises:
            FlightCancelled: The owner was closed.
        """
        if self._task.cancelled():
            raise FlightCancelled
        return self._task.result()

    async def _ring_in_turn(self, patience: float) -> None:
        while True:
            now = self._clock.monotonic()
            due = now + patience  # of whoever comes next, at the earliest
            for waiter, came in self._waiters.items():
                if came + patience > now:
                    due = came + patience
                    break
                _wake(waiter)  # it leaves by itself
            await self._clock.sleep(due - now)

    def _land(self) -> None:
        if self._bell is not None:
            self._bell.cancel()
        for waiter in self._waiters:
            _wake(waiter)
        self._waiters.clear()


async def _ring(clock: Clock, seconds: float, waiter: asyncio.Future[None]) -> None:
    await clock.sleep(max(0.0, seconds))
    _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class SingleFlight(Generic[T]):
    """The flights under way, one for each key and `limit` in all, besides those that they need themselves.

    Who has waited for `patience` seconds is woken, although the flight goes on for those who came later.
    """

    __slots__ = ("_clock", "_counted", "_flights", "_limit", "_patience")

    def __init__(self, limit: int, *, clock: Clock, patience: float | None = None) -> None:
        self._limit = limit
        self._counted = 0
        self._patience = patience
        self._clock = clock
        self._flights: dict[Hashable, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    def get(self, key: Hashable) -> Flight[T] | None:
        """Return the flight that is under way for a key."""
        return self._flights.get(key)

    def join(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], *, counted: bool = True, about: Any = None
    ) -> Flight[T]:
        """Return the flight for a key, begun now if there is none.

        Args:
            key: What is fetched.
            work: Makes the coroutine that fetches it.
            counted: False for one that a flight under way waits for. If it needed a place too, a crowd that has taken
                all places would keep itself from what it waits for.
            about: An attribute of the flight.

        Raises:
            TooManyFlights: There is none, and `limit` others are under way, or the flights are closed.
        """
        flight = self._flights.get(key)
        if flight is not None:
            return flight
        if not self._limit or (counted and self._counted >= self._limit):
            raise TooManyFlights
        flight = Flight(work(), clock=self._clock, patience=self._patience, about=about)
        self._flights[key] = flight
        self._counted += counted

        def land(task: asyncio.Task[T]) -> None:
            self._counted -= counted
            if self._flights.get(key) is flight:
                del self._flights[key]
            if not task.cancelled():
                task.exception()  # looked at, so that the loop never reports it as not retrieved
            flight._land()

        flight._task.add_done_callback(land)
        return flight

    async def close(self) -> None:
        """Cancel all flights and wait for their ends. No other begins any more."""
        self._limit = 0
        flights = list(self._flights.values())
        tasks = {task for flight in flights for task in (flight._task, flight._bell) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
