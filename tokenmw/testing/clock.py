"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
from typing import final

__all__ = ["ManualClock"]

# Turns of the event loop that a step of `elapse` gives to the tasks it woke. A task needs one for each await that is
# ready; longer chains are rare, and more turns would make tests slower.
_TURNS = 25


@final
class ManualClock:
    """A clock that stands still until :meth:`advance`, :meth:`elapse` or :meth:`step_wall` is called.

    >>> clock = ManualClock(1_800_000_000.0)
    >>> clock.advance(90)
    >>> clock.time()
    1800000090.0

    An event loop in another thread may use it too, such as the one of starlette's `TestClient`.

    Args:
        start: The initial wall clock time, in seconds since 1970 (UTC).
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        # Two very different numbers, so that code that confuses the clocks fails.
        self._monotonic = 1_000.0
        self._wall = start - self._monotonic
        self._numbers = itertools.count()
        self._due: list[tuple[float, int]] = []
        self._sleepers: dict[int, asyncio.Future[None]] = {}
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic

    def time(self) -> float:
        """Return seconds since 1970 (UTC), as :meth:`step_wall` left them."""
        return self._wall + self._monotonic

    @property
    def sleepers(self) -> int:
        """The number of tasks that wait in :meth:`sleep`."""
        return len(self._sleepers)

    async def sleep(self, seconds: float, /) -> None:
        """Wait until the clock was moved by `seconds`; zero or less yields to other tasks once."""
        if not seconds > 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            number = next(self._numbers)
            self._sleepers[number] = future
            heapq.heappush(self._due, (self._monotonic + seconds, number))
        try:
            await future
        finally:
            # A cancelled sleeper leaves here; `_move_to` skips its entry in the heap.
            self._sleepers.pop(number, None)

    def advance(self, seconds: float) -> None:
        """Move both clocks by `seconds` in one step, and wake the sleepers that are due, in order.

        The woken tasks run when the test next awaits. They all see the final time; use :meth:`elapse` for a task that
        sleeps repeatedly.

        Raises:
            ValueError: `seconds` is negative or not finite. Only :meth:`step_wall` goes back.
        """
        self._move_to(self._time_after(seconds))

    async def elapse(self, seconds: float) -> None:
        """Let `seconds` pass as real time would: stop at the time of each sleeper, and let tasks run there.

        Tasks that wait for a socket need real time: await them before more time passes here.

        Raises:
            ValueError: As in :meth:`advance`.
        """
        end = self._time_after(seconds)
        await _settle()
        while (due := self._next_due()) is not None and due <= end:
            self._move_to(due)
            await _settle()
        self._move_to(end)
        await _settle()

    def step_wall(self, seconds: float) -> None:
        """Move the wall clock forward, or back if negative; the monotonic clock does not change."""
        self._wall += seconds

    def _time_after(self, seconds: float) -> float:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"ManualClock cannot move by {seconds} s: give a finite number, zero or more.")
        return self._monotonic + seconds

    def _next_due(self) -> float | None:
        with self._lock:
            while self._due and self._due[0][1] not in self._sleepers:
                heapq.heappop(self._due)
            return self._due[0][0] if self._due else None

    def _move_to(self, time: float) -> None:
        self._monotonic = time
        with self._lock:
            while self._due and self._due[0][0] <= time:
                sleeper = self._sleepers.pop(heapq.heappop(self._due)[1], None)
                if sleeper is not None:
                    _wake(sleeper)

    def __repr__(self) -> str:
        return f"ManualClock(time={self.time():.3f}, monotonic={self._monotonic:.3f})"


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _wake(sleeper: asyncio.Future[None]) -> None:
    loop = sleeper.get_loop()
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        _finish(sleeper)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(_finish, sleeper)


def _finish(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
