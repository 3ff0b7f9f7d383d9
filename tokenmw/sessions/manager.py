"""Session ids for requests: from the local copy while it is in use, from Redis at first sight.

A first sight sends a candidate, which Redis keeps if it has no id for the key. A reply that does not come leaves open
whether it has, and the request needs an id now: the one that is derived from the key, to which every other instance
comes as well. So that Redis does not hold another one by then:

1. The candidate is random while all goes well. For some seconds after a failure or a slow reply it is the derived id:
   then what Redis may keep is what is handed out. Where there is no secret to derive with, the candidate itself is.
2. A candidate that reaches the server after its deadline, because either of them stood still, is not kept.
3. What is left is the random candidate of the first command that fails, if it arrived in time. The next round of
   housekeeping, and not only the next touch, offers what was handed out and takes what Redis has: there all agree on
   what was written first, and whoever asks Redis in the meantime has got that already.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.caches import SecondChanceCache
from tokenmw.errors import SessionUnavailable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.sessions.cache import SessionEntry
from tokenmw.sessions.rate_limit import TokenBucket
from tokenmw.singleflight import FlightCancelled, SingleFlight, TooManyFlights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.redis.session_store import RedisSessionStore
    from tokenmw.sessions.derive import DerivedIds
    from tokenmw.sessions.sync import SessionTouches

__all__ = ["SessionManager", "SessionPolicy"]

SessionPolicy = Literal["available", "required"]

_SLIDE: Final = 20  # the time in Redis is started again after a twentieth of it


class SessionManager:
    """Finds and makes session ids. The local copies outlive an event loop; `start` stands at its beginning."""

    __slots__ = (
        "_clock",
        "_derivation",
        "_flights",
        "_idle",
        "_limits",
        "_local",
        "_monotonic",
        "_new",
        "_policy",
        "_slide_after",
        "_store",
        "_touches",
    )

    def __init__(
        self, *, ttl: float, policy: SessionPolicy, derivation: DerivedIds, limits: Limits, clock: Clock
    ) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._limits = limits
        self._derivation = derivation
        self._policy = policy
        self._idle = ttl
        self._slide_after = ttl / _SLIDE
        self._local: SecondChanceCache[bytes, SessionEntry] = SecondChanceCache(
            limits.sessions, ttl, timer=clock.monotonic
        )
        self._flights: SingleFlight[SessionEntry | None] = SingleFlight(limits.commands, clock=clock)
        self._new = TokenBucket(limits.new_sessions, clock=clock)
        self._store: RedisSessionStore | None = None
        self._touches: SessionTouches | None = None

    def start(self, store: RedisSessionStore, touches: SessionTouches) -> Callable[[], Awaitable[None]]:
        """Begin to share, in the running event loop. Return what ends that, but not what another start began since."""
        flights: SingleFlight[SessionEntry | None] = SingleFlight(self._limits.commands, clock=self._clock)
        self._flights = flights
        self._store = store
        self._touches = touches

        async def stop() -> None:
            if self._flights is flights:
                self._store = self._touches = None
            await flights.close()

        return stop

    def __len__(self) -> int:
        return len(self._local)

    def known(self, api_key: bytes) -> str | None:
        """Return the id of a key that was seen here not long ago. Never waits. In the loop's thread only."""
        try:
            session = self._local[api_key]
        except KeyError:
            return None
        now = self._monotonic()
        if now > session.due:
            # Only then, too, can it have been idle for long.
            if now - session.used > self._idle:
                return None
            self._slide(api_key, session, now)
        session.used = now
        return session.id

    async def get(self, api_key: bytes) -> str:
        """Return the session id of an API key.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is away.
        """
        known = self.known(api_key)
        if known is not None:
            return known
        store, session = self._store, None
        if store is not None:
            try:
                flight = self._flights.join(_unnamed(api_key), lambda: self._look_up(store, api_key))
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
            SessionUnavailable: `session_policy="required"`, and Redis is away; the id stays what it was.
        """
        required = self._policy == "required"
        session = self._copy(self._derivation.fresh(), shared=False)
        session.overwrite = True
        if not required:
            self._local[api_key] = session
        try:
            if self._store is not None:
                await self._store.put(self._store.key(api_key), session.id)
                session.shared, session.overwrite = True, False
        except RedisUnavailable:
            if not required:
                self._queue(api_key, session)
        if required:
            if not session.shared:
                raise _unavailable()
            self._local[api_key] = session
        return session.id

    def purge(self) -> None:
        """Drop the copies of keys that have been idle."""
        self._local.expire()

    def held(self) -> list[bytes]:
        """Return the API keys of all copies."""
        return self._local.names()

    def to_offer(self, api_key: bytes) -> SessionEntry | None:
        """Return the copy of a key if it is in use, may be shared, and does not wait to be told to Redis anyway."""
        session = self._local.get(api_key)
        if session is None or self._monotonic() - session.used > self._idle:
            return None
        if not session.shared and self._touches is not None and api_key in self._touches:
            return None
        return session if self._may_share(session) else None

    async def _look_up(self, store: RedisSessionStore, api_key: bytes) -> SessionEntry | None:
        """Return the session as Redis has it; None if it cannot be shared now."""
        before, key = self._local.get(api_key), store.key(api_key)
        candidate = self._derivation.id(api_key) if store.reply_may_be_lost(key) else self._derivation.fresh()
        may_create = self._new.take()
        try:
            if may_create:
                found: object = await store.get_or_create(key, candidate)
            else:
                (found,) = await store.touch([key])
        except RedisUnavailable:
            found = None
        except Unreadable:
            # Instances with the other secret use what is there; it is not ours to replace.
            found = self._derivation.id(api_key)
        if may_create and found != candidate:
            self._new.give_back()
        current = self._local.get(api_key)
        if current is not None and current is not before:
            return current  # it was reset in the meantime
        if isinstance(found, str):
            return self._keep(api_key, found, shared=True)
        if may_create and not self._derivation.agrees and self._policy != "required":
            return self._offered(api_key, candidate)
        return None

    def _without_redis(self, api_key: bytes) -> SessionEntry:
        session = self._local.get(api_key)
        if session is not None and self._monotonic() - session.used <= self._idle:
            return session  # another request with this key was told so a moment ago
        if self._policy == "required":
            raise _unavailable()
        return self._offered(api_key, self._derivation.id(api_key))

    def _offered(self, api_key: bytes, session_id: str) -> SessionEntry:
        session = self._keep(api_key, session_id, shared=False)
        if self._may_share(session):
            self._queue(api_key, session)
        return session

    def _may_share(self, session: SessionEntry) -> bool:
        # What Redis has had, or has under another id, is nothing new there.
        return session.shared or session.overwrite or self._new.take()

    def _keep(self, api_key: bytes, session_id: str, *, shared: bool) -> SessionEntry:
        self._local[api_key] = session = self._copy(session_id, shared=shared)
        return session

    def _copy(self, session_id: str, *, shared: bool) -> SessionEntry:
        now = self._monotonic()
        return SessionEntry(session_id, now=now, due=now + self._slide_after, shared=shared)

    def _slide(self, api_key: bytes, session: SessionEntry, now: float) -> None:
        session.due = now + self._slide_after
        if self._may_share(session):
            self._queue(api_key, session)

    def _queue(self, api_key: bytes, session: SessionEntry) -> None:
        if self._touches is not None:
            self._touches.add(api_key, session)


def _unavailable() -> SessionUnavailable:
    return SessionUnavailable(
        'No session id: Redis cannot be used, and session_policy="required" wants one that all instances know.',
        retry_after=1.0,
    )


def _unnamed(api_key: bytes) -> bytes:
    # A flight's key is in tracebacks with locals; an API key must not be.
    return hashlib.blake2b(api_key, digest_size=16).digest()
