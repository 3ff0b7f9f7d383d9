"""How many new sessions a process may write to Redis: so many a second in the long run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = ["TokenBucket"]

_SAVED: Final = 10.0  # seconds whose allowance may be used at once, so that a start-up with many callers goes through


class TokenBucket:
    """A token bucket. What is taken comes back at `rate` a second, up to ten seconds' worth.

    >>> allowance = TokenBucket(500, clock=SYSTEM_CLOCK)
    >>> allowance.take()
    True
    """

    __slots__ = ("_clock", "_counted", "_left", "_most", "_rate")

    def __init__(self, rate: float, *, clock: Clock) -> None:
        self._clock = clock
        self._rate = rate
        self._left = self._most = rate * _SAVED
        self._counted = clock.monotonic()

    def take(self) -> bool:
        """Take one, if there is one left. Return whether there was."""
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._counted) * self._rate)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Put one back that was not needed."""
        self._left = min(self._most, self._left + 1)
