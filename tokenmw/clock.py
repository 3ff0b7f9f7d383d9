"""Time as a parameter: both of the operating system's clocks, and waiting."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, final

__all__ = ["SYSTEM_CLOCK", "Clock", "Instant", "SystemClock"]


class Clock(Protocol):
    """What the package asks of time. `tokenmw.testing.ManualClock` is one whose time a test moves."""

    def monotonic(self) -> float:
        """Return seconds that never go back. They may stand still while the machine is suspended."""
        ...

    def time(self) -> float:
        """Return seconds since 1970 (UTC). They may be set forward and back."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait for so many seconds."""
        ...


@final
class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    # The C functions themselves: a Python frame around each would double the cost of the warm path.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)

    def __repr__(self) -> str:
        return "SYSTEM_CLOCK"


SYSTEM_CLOCK: Clock = SystemClock()


class Instant:
    """Both clocks, read at once. Of two times left, the stricter one counts: clocks step, machines suspend."""

    __slots__ = ("mono", "wall")

    def __init__(self, clock: Clock) -> None:
        self.mono = clock.monotonic()
        self.wall = clock.time()

    def since(self, earlier: Instant) -> float:
        """Return the seconds that have passed since another moment, by the clock that says more."""
        return max(self.mono - earlier.mono, self.wall - earlier.wall)
