"""The sessions of this process: bounded data that outlives an event loop."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from tokenmw.caches import SecondChanceCache
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.limits import Limits

__all__ = ["LONGEST_KEPT", "TOUCHES_PER_TTL", "SessionCache", "SessionEntry", "local_key"]

LONGEST_KEPT: Final = 64  # bytes of an API key that is itself the key of local maps
# Makes a digest longer than any API key that is kept, and no UTF-8, so that no API key equals one: lookups try the
# key itself first.
_MARK: Final = b"\xff" * (LONGEST_KEPT + 1 - 32)
TOUCHES_PER_TTL: Final = 4  # a session in use is touched after a quarter of `session_ttl`


def local_key(api_key: bytes) -> bytes:
    """Return the key under which local maps have an API key: itself up to 64 bytes, else its digest, of 65 bytes.

    So memory is bounded by the number of sessions, however long the keys are that callers send. A digest for each key
    would cost a request of a known key 1 µs.
    """
    return api_key if len(api_key) <= LONGEST_KEPT else _MARK + hashlib.sha256(api_key).digest()


class SessionEntry(Unpicklable):
    """This process's copy of one session; with what refers to it, it takes at most 300 bytes.

    Attributes:
        id: The session id.
        redis_key: The key in Redis of a session whose API key is too long to be kept; None: made from the API key.
        used: The monotonic time of the last request.
        placed: The monotonic time at which the cache placed it behind all others.
        touch_after: The monotonic time after which a request queues a touch, which keeps the session alive in Redis.
    """

    __slots__ = ("_shared", "id", "placed", "touch_after", "used")

    redis_key: bytes | None = None  # of the class, which takes no memory of an entry; `LongKeyEntry` has its own

    def __init__(self, session_id: str, *, now: float, touch_after: float, shared: bool) -> None:
        self.id = session_id
        self.used = now
        self.placed = now
        self.touch_after = touch_after
        self._shared: bool | bytes = shared  # bytes: `overwrite`, and `reset`. One attribute for all saves 16 bytes

    @property
    def shared(self) -> bool:
        """Whether Redis has it; if not, it is uploaded "if absent"."""
        return self._shared is True

    @shared.setter
    def shared(self, shared: bool) -> None:
        self._shared = shared

    @property
    def overwrite(self) -> bool:
        """Whether it must replace what Redis has: it was reset, and Redis does not have the new id yet."""
        return isinstance(self._shared, bytes)

    @overwrite.setter
    def overwrite(self, overwrite: bool) -> None:
        if overwrite != self.overwrite:
            self._shared = b"" if overwrite else False

    @property
    def reset(self) -> bytes:
        """What Redis is to keep of the reset, as `SessionIds.reset` returns it, until Redis has it; b"" for nothing."""
        return self._shared if isinstance(self._shared, bytes) else b""

    @reset.setter
    def reset(self, kept: bytes) -> None:
        self._shared = kept


class LongKeyEntry(SessionEntry):
    """A session whose API key is too long to be kept."""

    __slots__ = ("redis_key",)

    def __init__(
        self, session_id: str, *, now: float, touch_after: float, shared: bool, redis_key: bytes | None
    ) -> None:
        super().__init__(session_id, now=now, touch_after=touch_after, shared=shared)
        self.redis_key = redis_key


class SessionCache(SecondChanceCache[bytes, SessionEntry]):
    """The sessions used within `session_ttl`, by `local_key`, up to `Limits(sessions=…)`.

    Attributes:
        ttl: Seconds after which an idle session has expired.
    """

    __slots__ = ("_touch_after", "_touch_every", "ttl")

    def __init__(self, *, ttl: float, limits: Limits, clock: Clock) -> None:
        super().__init__(limits.sessions, ttl, timer=clock.monotonic)
        self.ttl = ttl
        self._touch_every = ttl / TOUCHES_PER_TTL
        self._touch_after = float("-inf")

    def touch_after(self, now: float) -> float:
        """Return the time after which a session that is touched or made now is touched again.

        Sessions share this number for a hundredth of the time until then: it takes 24 bytes.
        """
        due = now + self._touch_every
        if due - self._touch_after > self._touch_every / 100:
            self._touch_after = due
        return self._touch_after

    def make(self, api_key: bytes, session_id: str, *, shared: bool, redis_key: bytes | None = None) -> SessionEntry:
        """Return a session of an API key that is used now, without adding it.

        `redis_key` is needed for an API key that is too long to be kept, and dropped for any other.
        """
        now = self._timer()
        touch_after = self.touch_after(now)
        if len(api_key) <= LONGEST_KEPT:
            return SessionEntry(session_id, now=now, touch_after=touch_after, shared=shared)
        return LongKeyEntry(session_id, now=now, touch_after=touch_after, shared=shared, redis_key=redis_key)

    def add(self, api_key: bytes, session_id: str, *, shared: bool, redis_key: bytes | None = None) -> SessionEntry:
        """Make a session and add it."""
        session = self.make(api_key, session_id, shared=shared, redis_key=redis_key)
        self[local_key(api_key)] = session
        return session

    def use(self, api_key: bytes) -> str | None:
        """Return the id of an active session, used as of now; None if there is none."""
        session = self.active(local_key(api_key))
        if session is None:
            return None
        session.used = self._timer()
        return session.id

    def active(self, key: bytes) -> SessionEntry | None:
        """Return the session of a local key if it has not been idle for `session_ttl`."""
        session = self.get(key)
        return None if session is None or self._timer() - session.used > self.ttl else session
