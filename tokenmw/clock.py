"""Time as a parameter: the monotonic clock, the wall clock, and sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, final

__all__ = ["SYSTEM_CLOCK", "Clock", "Instant", "SystemClock"]


class Clock(Protocol):
    """The source of time. A test moves the time of a `tokenmw.testing.ManualClock` itself."""

    def monotonic(self) -> float:
        """Return seconds that never decrease. They may not count the time for which the machine is suspended."""
        ...

    def time(self) -> float:
        """Return seconds since 1970 (UTC). The clock may be set forward and back."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait for `seconds`."""
        ...


@final
class SystemClock:
    """The clocks of the operating system."""

    __slots__ = ()

    # The C functions themselves: Python functions around them would be too slow for the warm path.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)

    def __repr__(self) -> str:
        return "SYSTEM_CLOCK"


SYSTEM_CLOCK: Clock = SystemClock()


class Instant:
    """Both clocks, read together. The stricter one decides: the wall clock steps, the monotonic clock may stop."""

    __slots__ = ("mono", "wall")

    def __init__(self, clock: Clock) -> None:
        self.mono = clock.monotonic()
        self.wall = clock.time()

    def since(self, earlier: Instant) -> float:
        """Return the seconds since an earlier instant, by the clock that shows more."""
        return max(self.mono - earlier.mono, self.wall - earlier.wall)
