"""How many new sessions a process may write to Redis: a rate, and a bound on what a flood leaves there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.limits import Limits

__all__ = ["NewSessions", "TokenBucket"]

_BURST_SECONDS: Final = 10.0  # seconds' worth of permits at once, so that a start-up with many callers is not throttled


class TokenBucket:
    """A token bucket: `rate` permits a second, and up to `burst` at once.

    >>> bucket = TokenBucket(500, burst=5_000, clock=SYSTEM_CLOCK)
    >>> bucket.take()
    True
    """

    __slots__ = ("_burst", "_clock", "_left", "_rate", "_updated")

    def __init__(self, rate: float, *, burst: float, clock: Clock) -> None:
        self._clock = clock
        self._rate = rate
        self._left = self._burst = burst
        self._updated = clock.monotonic()

    def take(self) -> bool:
        """Take one permit. Return whether there was one."""
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._updated) * self._rate)
        self._updated = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Return a permit that was not needed."""
        self._left = min(self._burst, self._left + 1)


class NewSessions:
    """Permits to write a new session to Redis.

    A session that is never used again stays in Redis for `redis_ttl` seconds. In that time there are at most
    `Limits(new_sessions_per_ttl=…)` permits: half of them at once, and the other half as time passes.

    Args:
        limits: `new_sessions` and `new_sessions_per_ttl` are the bounds.
        redis_ttl: Seconds after which Redis forgets an idle session.
        clock: Time.
    """

    __slots__ = ("_in_all", "_per_second")

    def __init__(self, limits: Limits, *, redis_ttl: float, clock: Clock) -> None:
        rate, half = limits.new_sessions, max(1.0, limits.new_sessions_per_ttl / 2)
        self._per_second = TokenBucket(rate, burst=rate * _BURST_SECONDS, clock=clock)
        self._in_all = TokenBucket(half / redis_ttl, burst=half, clock=clock)

    def take(self) -> bool:
        """Take one permit. Return whether there was one."""
        if not self._per_second.take():
            return False
        if self._in_all.take():
            return True
        self._per_second.give_back()
        return False

    def give_back(self) -> None:
        """Return a permit that was not needed."""
        self._per_second.give_back()
        self._in_all.give_back()
