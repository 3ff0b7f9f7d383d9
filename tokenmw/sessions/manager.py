"""Session ids for requests: from the local cache while in use, from Redis at first sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.sessions.cache import LONGEST_KEPT, local_key
from tokenmw.sessions.first_sight import SessionPolicy, unavailable

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.sessions.cache import SessionCache
    from tokenmw.sessions.derive import SessionIds
    from tokenmw.sessions.first_sight import FirstSights
    from tokenmw.sessions.sync import SessionSync

__all__ = ["SessionManager", "SessionPolicy"]


class SessionManager(Unpicklable):
    """Finds and makes session ids, in the event loop in which it was made.

    Args:
        cache: The sessions of this process.
        sync: Shares sessions through Redis; None: they are this process's own.
        first_sights: Looks up new API keys in Redis; None as well without it.
        ids: Makes ids.
        policy: What `reset` does while Redis is unavailable: make an id for this process, or raise.
        clock: Time.
    """

    __slots__ = ("_cache", "_first_sights", "_ids", "_monotonic", "_required", "_sessions", "_sync")

    def __init__(
        self,
        *,
        cache: SessionCache,
        sync: SessionSync | None,
        first_sights: FirstSights | None,
        ids: SessionIds,
        policy: SessionPolicy,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._sessions = cache.entries
        self._sync = sync
        self._first_sights = first_sights
        self._ids = ids
        self._required = policy == "required"
        self._monotonic = clock.monotonic

    async def close(self) -> None:
        """Cancel the first sights in progress: their callers get the id that is made without Redis."""
        if self._first_sights is not None:
            await self._first_sights.close()

    def cached(self, api_key: bytes) -> str | None:
        """Return the id of a key from the local cache, without waiting. In the event loop's thread only."""
        try:
            session = self._sessions[api_key]
        except KeyError:
            if len(api_key) <= LONGEST_KEPT:
                return None
            found = self._sessions.get(local_key(api_key))
            if found is None:
                return None
            session = found
        now = self._monotonic()
        if now > session.touch_after:
            # Only past this time can the session have been idle for `session_ttl`.
            if now - session.used > self._cache.ttl:
                return None
            session.touch_after = self._cache.touch_after(now)
            if self._sync is not None:
                self._sync.queue(local_key(api_key), session)
        session.used = now
        return session.id

    async def get(self, api_key: bytes) -> str:
        """Return the session id of an API key.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is unavailable or may not get a new session.
        """
        cached = self.cached(api_key)
        if cached is not None:
            return cached
        if self._first_sights is None:
            return self._cache.add(api_key, self._ids.derive(api_key), shared=False).id
        return (await self._first_sights.get(api_key)).id

    async def reset(self, api_key: bytes) -> str:
        """Give an API key a new session id; other instances take it over at their next touch.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is unavailable; the id stays what it was.
        """
        key, store = local_key(api_key), None if self._sync is None else self._sync.store
        redis_key = None if store is None else store.key(api_key)
        session_id, kept = self._ids.reset(redis_key)
        session = self._cache.make(api_key, session_id, shared=False, redis_key=redis_key)
        session.reset = kept
        if not self._required:
            self._cache[key] = session
        if self._sync is not None and store is not None and redis_key is not None:
            try:
                await store.put(redis_key, session.id, kept)
                session.shared = True
            except RedisUnavailable:
                if not self._required:
                    self._sync.queue(key, session)
        if self._required:
            if not session.shared:
                raise unavailable("Redis is unavailable")
            self._cache[key] = session
        return session.id
