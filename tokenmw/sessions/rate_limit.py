"""How many new sessions a process may write to Redis: a rate in the long run, with a burst at start-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = ["TokenBucket"]

_BURST_SECONDS: Final = 10.0  # seconds' worth of permits at once, so that a start-up with many callers is not throttled


class TokenBucket:
    """A token bucket: `rate` permits a second, and up to ten seconds' worth at once.

    >>> bucket = TokenBucket(500, clock=SYSTEM_CLOCK)
    >>> bucket.take()
    True
    """

    __slots__ = ("_clock", "_left", "_max", "_rate", "_updated")

    def __init__(self, rate: float, *, clock: Clock) -> None:
        self._clock = clock
        self._rate = rate
        self._left = self._max = rate * _BURST_SECONDS
        self._updated = clock.monotonic()

    def take(self) -> bool:
        """Take one permit. Return whether there was one."""
        now = self._clock.monotonic()
        self._left = min(self._max, self._left + (now - self._updated) * self._rate)
        self._updated = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Return a permit that was not needed."""
        self._left = min(self._max, self._left + 1)
