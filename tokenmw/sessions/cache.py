"""The sessions of this process: bounded data that outlives an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.caches import SecondChanceCache
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.limits import Limits

__all__ = ["SessionCache", "SessionEntry"]


class SessionEntry(Unpicklable):
    """This process's copy of one session.

    Attributes:
        id: The session id.
        used: The monotonic time of the last request.
        placed: The monotonic time at which the cache placed it behind all others.
        touch_after: The monotonic time after which a request queues a touch, which keeps the session alive in Redis.
        shared: Whether Redis has it; if not, it is uploaded "if absent".
        overwrite: Whether it must replace what Redis has: it was reset while Redis was unavailable.
    """

    __slots__ = ("id", "overwrite", "placed", "shared", "touch_after", "used")

    def __init__(self, session_id: str, *, now: float, touch_after: float, shared: bool) -> None:
        self.id = session_id
        self.used = now
        self.placed = now
        self.touch_after = touch_after
        self.shared = shared
        self.overwrite = False


class SessionCache(SecondChanceCache[bytes, SessionEntry]):
    """The sessions used within `session_ttl`, by API key, up to `Limits(sessions=…)`."""

    def __init__(self, *, ttl: float, limits: Limits, clock: Clock) -> None:
        super().__init__(limits.sessions, ttl, timer=clock.monotonic)
        self.ttl = ttl

    def use(self, api_key: bytes) -> str | None:
        """Return the id of an active session, used as of now; None if there is none."""
        now = self._timer()
        session = self.active(api_key, now)
        if session is None:
            return None
        session.used = now
        return session.id

    def active(self, api_key: bytes, now: float) -> SessionEntry | None:
        """Return the session of a key if it has not been idle for `session_ttl`."""
        session = self.get(api_key)
        return None if session is None or now - session.used > self.ttl else session
