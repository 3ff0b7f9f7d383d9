"""Session ids for requests: from the local cache while in use, from Redis at first sight.

A first sight sends a candidate, which Redis stores if it has no id for the key. If the reply is lost, the candidate may
or may not be stored, and the request needs an id now: the one derived from the key, which every other instance derives
too. Redis must not hold a different one by then:

1. The candidate is random while all goes well. For some seconds after a failure or a slow reply it is the derived id:
   then what Redis may store is what the request gets. Without a secret to derive with, the candidate itself is used.
2. A candidate that reaches the server after its deadline, because either side was paused, is not stored.
3. What remains is the random candidate of the first command that fails, if it arrived in time. The next round of
   housekeeping (not only the next touch) uploads what the request got, and takes the id that Redis has. Then all
   instances agree on the id that was written first; those that asked Redis in the meantime have it already.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.errors import SessionUnavailable
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.sessions.cache import SessionEntry
from tokenmw.singleflight import FlightCancelled, SingleFlight, TooManyFlights

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.redis.session_store import RedisSessionStore
    from tokenmw.sessions.cache import SessionCache
    from tokenmw.sessions.derive import SessionIds
    from tokenmw.sessions.rate_limit import TokenBucket
    from tokenmw.sessions.sync import SessionSync

__all__ = ["SessionManager", "SessionPolicy"]

SessionPolicy = Literal["available", "required"]

_TOUCHES_PER_TTL: Final = 20  # a session in use is touched after a twentieth of `session_ttl`


class SessionManager(Unpicklable):
    """Finds and makes session ids, in the event loop in which it was made.

    Args:
        cache: The sessions of this process.
        sync: Shares sessions through Redis; None: they are this process's own.
        ids: Makes ids.
        new_sessions: Permits for new sessions in Redis.
        policy: What to do while Redis is unavailable: derive an id, or raise.
        limits: `commands` bounds the first sights in progress.
        clock: Time.
    """

    __slots__ = (
        "_cache",
        "_first_sights",
        "_ids",
        "_monotonic",
        "_new_sessions",
        "_required",
        "_sync",
        "_touch_every",
    )

    def __init__(
        self,
        *,
        cache: SessionCache,
        sync: SessionSync | None,
        ids: SessionIds,
        new_sessions: TokenBucket,
        policy: SessionPolicy,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._sync = sync
        self._ids = ids
        self._new_sessions = new_sessions
        self._required = policy == "required"
        self._monotonic = clock.monotonic
        self._touch_every = cache.ttl / _TOUCHES_PER_TTL
        self._first_sights: SingleFlight[SessionEntry | None] = SingleFlight(limits.commands, clock=clock)

    async def close(self) -> None:
        """Cancel the first sights in progress: their callers get the id that is made without Redis."""
        await self._first_sights.close()

    def cached(self, api_key: bytes) -> str | None:
        """Return the id of a key from the local cache, without waiting. In the event loop's thread only."""
        try:
            session = self._cache[api_key]
        except KeyError:
            return None
        now = self._monotonic()
        if now > session.touch_after:
            # Only past this time can the session have been idle for `session_ttl`.
            if now - session.used > self._cache.ttl:
                return None
            session.touch_after = now + self._touch_every
            if self._sync is not None:
                self._sync.queue(api_key, session)
        session.used = now
        return session.id

    async def get(self, api_key: bytes) -> str:
        """Return the session id of an API key.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is unavailable.
        """
        cached = self.cached(api_key)
        if cached is not None:
            return cached
        sync, session = self._sync, None
        if sync is not None:
            try:
                flight = self._first_sights.join(_digest(api_key), lambda: self._first_sight(sync, api_key))
                await flight.wait()
                session = flight.result()
            except (TooManyFlights, FlightCancelled):
                session = None
        if session is None:
            session = self._without_redis(api_key)
        session.used = self._monotonic()
        return session.id

    async def reset(self, api_key: bytes) -> str:
        """Give an API key a new session id; other instances take it over at their next touch.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is unavailable; the id stays what it was.
        """
        session = self._new_entry(self._ids.random(), shared=False)
        session.overwrite = True
        if not self._required:
            self._cache[api_key] = session
        if self._sync is not None:
            try:
                store = self._sync.store
                await store.put(store.key(api_key), session.id)
                session.shared, session.overwrite = True, False
            except RedisUnavailable:
                if not self._required:
                    self._sync.queue(api_key, session)
        if self._required:
            if not session.shared:
                raise _unavailable()
            self._cache[api_key] = session
        return session.id

    async def _first_sight(self, sync: SessionSync, api_key: bytes) -> SessionEntry | None:
        """Return the session as Redis has it; None if it cannot be shared now."""
        store = sync.store
        before, key = self._cache.get(api_key), store.key(api_key)
        candidate = self._ids.derive(api_key) if store.reply_may_be_lost(key) else self._ids.random()
        may_create = self._new_sessions.take()
        found = await self._get_or_create(store, key, candidate if may_create else None, api_key)
        if may_create and found != candidate:
            self._new_sessions.give_back()
        current = self._cache.get(api_key)
        if current is not None and current is not before:
            return current  # it was reset in the meantime
        if found is not None:
            return self._add(api_key, found, shared=True)
        if may_create and not self._ids.derivable and not self._required:
            return self._add_unshared(api_key, candidate)
        return None

    async def _get_or_create(
        self, store: RedisSessionStore, key: bytes, candidate: str | None, api_key: bytes
    ) -> str | None:
        try:
            if candidate is not None:
                return await store.get_or_create(key, candidate)
            (found,) = await store.touch([key])
        except RedisUnavailable:
            return None
        except Unreadable:
            # Instances with another secret use the stored id; this one must not replace it.
            return self._ids.derive(api_key)
        return found if isinstance(found, str) else None

    def _without_redis(self, api_key: bytes) -> SessionEntry:
        session = self._cache.active(api_key, self._monotonic())
        if session is not None:
            return session  # another request with this key made it while this one waited
        if self._required:
            raise _unavailable()
        return self._add_unshared(api_key, self._ids.derive(api_key))

    def _add_unshared(self, api_key: bytes, session_id: str) -> SessionEntry:
        session = self._add(api_key, session_id, shared=False)
        if self._sync is not None:
            self._sync.queue(api_key, session)
        return session

    def _add(self, api_key: bytes, session_id: str, *, shared: bool) -> SessionEntry:
        self._cache[api_key] = session = self._new_entry(session_id, shared=shared)
        return session

    def _new_entry(self, session_id: str, *, shared: bool) -> SessionEntry:
        now = self._monotonic()
        return SessionEntry(session_id, now=now, touch_after=now + self._touch_every, shared=shared)


def _unavailable() -> SessionUnavailable:
    return SessionUnavailable(
        'No session id: Redis is unavailable, and session_policy="required" needs one that all instances know.',
        retry_after=1.0,
    )


def _digest(api_key: bytes) -> bytes:
    # A flight's key is in tracebacks with locals; an API key must not be.
    return hashlib.blake2b(api_key, digest_size=16).digest()
