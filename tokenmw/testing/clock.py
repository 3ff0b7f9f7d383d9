"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
from typing import final

__all__ = ["ManualClock"]

# How often a step of `elapse` gives the loop to the tasks it woke. A woken task needs one turn for each await
# that does not really wait; chains longer than this are rare, and more turns would only make tests slower.
_TURNS = 25


@final
class ManualClock:
    """Time for tests: it stands still until :meth:`advance`, :meth:`elapse` or :meth:`step_wall` is called.

    >>> clock = ManualClock(1_800_000_000.0)
    >>> clock.advance(90)
    >>> clock.time()
    1800000090.0

    It may be shared with an event loop in another thread, such as the one of starlette's `TestClient`.

    Args:
        start: The wall clock at the beginning, in seconds since 1970 (UTC).
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        # Two different numbers, so that code which mixes up the clocks fails at once.
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
        """How many tasks wait in :meth:`sleep` now."""
        return len(self._sleepers)

    async def sleep(self, seconds: float, /) -> None:
        """Wait until the clock has been moved by so many seconds; zero or less gives way once."""
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
            # A cancelled sleeper leaves here; its entry in the heap is passed over when its time comes.
            self._sleepers.pop(number, None)

    def advance(self, seconds: float) -> None:
        """Move both clocks by so many seconds at once, and wake in order the sleepers whose time has come.

        The woken tasks run when the test next awaits. They all see the final time; use :meth:`elapse` where a
        task sleeps again and again.

        Raises:
            ValueError: `seconds` is negative or not finite. Only :meth:`step_wall` goes back.
        """
        self._move_to(self._moment_after(seconds))

    async def elapse(self, seconds: float) -> None:
        """Let so many seconds pass as real time would: stop at each sleeper's time, and let tasks run there.

        Tasks that wait for a socket need real time to go on: await what they do, then let time pass.

        Raises:
            ValueError: As in :meth:`advance`.
        """
        end = self._moment_after(seconds)
        await _settle()
        while (due := self._next_due()) is not None and due <= end:
            self._move_to(due)
            await _settle()
        self._move_to(end)
        await _settle()

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back if negative; the monotonic clock does not notice."""
        self._wall += seconds

    def _moment_after(self, seconds: float) -> float:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"ManualClock cannot move by {seconds} s: give a finite number, zero or more.")
        return self._monotonic + seconds

    def _next_due(self) -> float | None:
        with self._lock:
            while self._due and self._due[0][1] not in self._sleepers:
                heapq.heappop(self._due)
            return self._due[0][0] if self._due else None

    def _move_to(self, moment: float) -> None:
        self._monotonic = moment
        with self._lock:
            while self._due and self._due[0][0] <= moment:
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
