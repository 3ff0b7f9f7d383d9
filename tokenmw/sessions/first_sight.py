"""First sights: the API keys that this process does not know, looked up in Redis in batches.

Nobody knows whether a key has a session before Redis was asked, so a flood of unknown keys and the callers whose
sessions are in Redis wait in one queue. It is long, and it is served quickly: a batch of keys is one command and one
round trip. Only *creating* a session needs a permit; all keys are read.

What is sent for a key is a candidate, which Redis stores if it has no id. If the reply is lost, the candidate may or
may not be stored, and the request needs an id now: the one derived from the key, which every other instance derives
too. Redis must not hold a different one by then:

1. The candidate is the derived id: then what Redis may store is what the request gets. With `session_ids="random"` it
   is random while all goes well, and derived for some seconds after a failure or a slow reply. Without a secret to
   derive with, the candidate itself is used.
2. A candidate that reaches the server after its deadline, because either side was paused, is not stored.
3. What remains is a random candidate of the first command that fails, if it arrived in time. The next round of
   housekeeping (not only the next touch) uploads what the request got, and takes the id that Redis has. Then all
   instances agree on the id that was written first; those that asked Redis in the meantime have it already.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import SessionUnavailable
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.session_store import UNAVAILABLE
from tokenmw.sessions.cache import local_key
from tokenmw.sessions.rate_limit import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.session_store import Reply
    from tokenmw.sessions.cache import SessionCache, SessionEntry
    from tokenmw.sessions.derive import SessionIds
    from tokenmw.sessions.rate_limit import NewSessions
    from tokenmw.sessions.sync import SessionSync

__all__ = ["FirstSights", "SessionPolicy", "unavailable"]

SessionPolicy = Literal["available", "required"]

_TOO_MANY: Final = "Too many new API keys at once (Limits(first_sights=%d)); session ids are compared with Redis later"
_NO_PERMIT: Final = "More new API keys than Limits(new_sessions=…) allows; session ids are not written to Redis"
# With larger batches a round trip would hardly cost less for each key, and what the event loop does between a command
# and its reply would come closer to the command's deadline.
_BATCH: Final = 32
# Batches at the same time: with the default of Limits(connections=…), one connection is left to other commands, such as
# those that acquire a token.
_BATCHES: Final = 2
# A batch costs the event loop as much as ten of its keys: in a flood, a batch for each new key would take the time of
# all other requests. So there are only so many small batches a second, with some more at first. Beyond them, and beside
# another batch, one begins when enough keys wait, or one has waited for a while.
_SMALL_BATCHES: Final = 250.0
_SMALL_BATCHES_AT_FIRST: Final = 4.0
_ENOUGH: Final = 16
_LONGEST_WAIT: Final = 0.004
# Lookups that are finished in one turn of the event loop. Their requests run in the next one, and whatever else is
# ready waits for them.
_FINISHED_AT_ONCE: Final = 8


class FirstSight(Unpicklable):
    """The lookup of one API key.

    Attributes:
        api_key: The API key.
        key: Its key in Redis.
        local: Its key in this process.
        before: The session that this process had for the key when the lookup began.
        candidate: The id that Redis stores if it has none; None: it stores nothing.
        session: The session, when the lookup is over; None if Redis could not be asked.
        waiters: The requests that wait for it.
        over_limit: Whether Redis has no id for the key, and no further session may be created now.
    """

    __slots__ = ("api_key", "before", "candidate", "key", "local", "over_limit", "session", "waiters")

    def __init__(self, api_key: bytes, key: bytes, *, local: bytes, before: SessionEntry | None) -> None:
        self.api_key = api_key
        self.key = key
        self.local = local
        self.before = before
        self.candidate: str | None = None
        self.session: SessionEntry | None = None
        self.over_limit = False
        self.waiters: dict[asyncio.Future[bool], None] = {}

    def finish(self) -> None:
        """Wake the waiters."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(True)


class FirstSights(Unpicklable):
    """Looks up API keys, each once however many requests wait for it, and up to `Limits(first_sights=…)` in all.

    While Redis answers, all of them wait for their turn, for `Limits(wait_seconds=…)` at most. Each entry of the result
    is in the cache.

    Args:
        cache: Gets the sessions.
        sync: Gets those that Redis may lack.
        ids: Makes ids.
        new_sessions: Permits for new sessions in Redis.
        policy: What to do without Redis: derive an id, or raise.
        limits: `first_sights` is the bound.
        log: Gets what the bounds refuse.

    Attributes:
        made: How many sessions were created in Redis.
    """

    __slots__ = (
        "_cache",
        "_closed",
        "_due",
        "_ids",
        "_late",
        "_limit",
        "_log",
        "_new_sessions",
        "_required",
        "_running",
        "_sights",
        "_small_batches",
        "_store",
        "_sync",
        "_timer",
        "_wait_seconds",
        "_waiting",
        "made",
    )

    def __init__(
        self,
        *,
        cache: SessionCache,
        sync: SessionSync,
        ids: SessionIds,
        new_sessions: NewSessions,
        policy: SessionPolicy,
        limits: Limits,
        log: ThrottledLog,
    ) -> None:
        self._cache = cache
        self._sync = sync
        self._store = sync.store
        self._ids = ids
        self._new_sessions = new_sessions
        self._required = policy == "required"
        self._limit = limits.first_sights
        self._wait_seconds = limits.wait_seconds
        self._log = log
        self._sights: dict[bytes, FirstSight] = {}  # by their keys in Redis: reports with variables show no API key
        self._waiting: deque[FirstSight] = deque()
        self._running: set[asyncio.Task[None]] = set()
        # The system's clock, as the event loop's timers have it.
        self._small_batches = TokenBucket(_SMALL_BATCHES, burst=_SMALL_BATCHES_AT_FIRST, clock=SYSTEM_CLOCK)
        self._due: dict[asyncio.Future[bool], float] = {}  # until when each request waits
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._closed = False
        self.made = 0

    def __len__(self) -> int:
        return len(self._sights)

    async def close(self) -> None:
        """Cancel the lookups in progress: their requests get the id that is made without Redis."""
        self._closed = True
        self._waiting.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for sight in list(self._sights.values()):
            self._finish(sight)
        for timer in (self._timer, self._late):
            if timer is not None:
                timer.cancel()
        self._timer = self._late = None

    async def get(self, api_key: bytes) -> SessionEntry:
        """Return the session of an API key that is not in the cache.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is unavailable or may not get a new session.
        """
        key = self._store.key(api_key)
        sight = self._sights.get(key)
        if sight is None:
            if self._closed:
                return self._without_redis(api_key, key)
            if len(self._sights) >= self._limit:
                self._log.problem("first-sights", _TOO_MANY, self._limit)
                return self._without_redis(api_key, key)
            local = local_key(api_key)
            sight = self._sights[key] = FirstSight(api_key, key, local=local, before=self._cache.get(local))
            self._waiting.append(sight)
            self._start()
        if not await self._wait(sight):
            # A server that is slow, but not too slow for its circuit, and many keys before this one.
            self._log.problem("first-sights", _TOO_MANY, self._limit)
        if sight.session is not None:
            return sight.session
        if sight.over_limit:
            raise unavailable("there are too many new API keys now")
        return self._without_redis(api_key, key)

    async def _wait(self, sight: FirstSight) -> bool:
        """Wait until a lookup is over, for `wait_seconds` at most. A cancelled waiter removes only itself."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        sight.waiters[waiter] = None
        due = self._due[waiter] = loop.time() + self._wait_seconds
        if self._timer is None:  # one for all: a flood would make a timer for each key
            self._timer = loop.call_at(due, self._wake_overdue)
        try:
            return await waiter
        finally:
            sight.waiters.pop(waiter, None)
            self._due.pop(waiter, None)

    def _wake_overdue(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for waiter, due in self._due.items():  # in order of arrival
            if due > loop.time():
                self._timer = loop.call_at(due, self._wake_overdue)
                return
            if not waiter.done():
                waiter.set_result(False)

    def _start(self) -> None:
        running = len(self._running)
        if len(self._waiting) >= _ENOUGH * max(1, running) or (not running and self._small_batches.take()):
            self._begin()
        elif self._late is None:
            self._late = asyncio.get_running_loop().call_later(_LONGEST_WAIT, self._start_late)

    def _start_late(self) -> None:
        self._late = None
        if self._waiting:
            self._begin()

    def _begin(self) -> None:
        if len(self._running) < _BATCHES:
            # An empty context: the context variables of one request are not for the others.
            work, context = self._look_up_waiting(), contextvars.Context()
            task = asyncio.get_running_loop().create_task(work, name="tokenmw first sights", context=context)
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._start()

    async def _look_up_waiting(self) -> None:
        small = True  # the first batch may be
        while self._waiting and (small or len(self._waiting) >= _ENOUGH):
            small = False
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                await self._look_up(batch)
                for first in range(0, len(batch) - _FINISHED_AT_ONCE, _FINISHED_AT_ONCE):
                    for sight in batch[first : first + _FINISHED_AT_ONCE]:
                        self._finish(sight)
                    await asyncio.sleep(0)
            finally:
                for sight in batch:
                    self._finish(sight)

    async def _look_up(self, batch: Sequence[FirstSight]) -> None:
        for sight in batch:
            if self._new_sessions.take():
                lost = self._store.reply_may_be_lost(sight.key)
                sight.candidate = self._ids.candidate(sight.api_key, reply_may_be_lost=lost)
        replies: Sequence[Reply]
        try:
            replies = await self._store.get_or_create([(sight.key, sight.candidate) for sight in batch])
        except RedisUnavailable:
            # Those that wait go on: if Redis does not answer them either, its circuit opens, and they fail at once.
            replies = [UNAVAILABLE] * len(batch)
        except BaseException:
            for sight in batch:
                if sight.candidate is not None:
                    self._new_sessions.give_back()
            raise
        for sight, reply in zip(batch, replies, strict=True):
            sight.session = self._session_of(sight, reply)

    def _session_of(self, sight: FirstSight, reply: Reply) -> SessionEntry | None:
        if sight.candidate is not None and reply is not sight.candidate:  # Redis may have had the same derived id
            self._new_sessions.give_back()
        elif sight.candidate is not None:
            self.made += 1
        current = self._cache.get(sight.local)
        if current is not None and current is not sight.before:
            return current  # it was reset in the meantime
        if isinstance(reply, str):
            return self._add(sight, reply, shared=True)
        if isinstance(reply, Unreadable):
            # Instances with another secret use the stored id; this one must not replace it.
            return self._add(sight, self._ids.derive(sight.api_key), shared=True)
        if sight.candidate is None and reply is None:
            sight.over_limit = True
            self._log.problem("new-sessions", _NO_PERMIT)
            # Redis has just been asked, so it is not queued: its next touch takes a permit, or reads again.
            return None if self._required else self._add(sight, self._ids.derive(sight.api_key), shared=False)
        if sight.candidate is not None and not self._ids.derivable and not self._required:
            session = self._add(sight, sight.candidate, shared=False)
            self._sync.queue(sight.local, session)
            return session
        return None

    def _finish(self, sight: FirstSight) -> None:
        if self._sights.get(sight.key) is sight:
            del self._sights[sight.key]
        sight.finish()

    def _without_redis(self, api_key: bytes, key: bytes) -> SessionEntry:
        session = self._cache.active(local_key(api_key))
        if session is not None:  # another request with this key made it while this one waited
            return session
        if self._required:
            raise unavailable("Redis is unavailable")
        session = self._cache.add(api_key, self._ids.derive(api_key), shared=False, redis_key=key)
        self._sync.queue(local_key(api_key), session)
        return session

    def _add(self, sight: FirstSight, session_id: str, *, shared: bool) -> SessionEntry:
        session = self._cache.make(sight.api_key, session_id, shared=shared, redis_key=sight.key)
        self._cache[sight.local] = session
        return session


def unavailable(why: str) -> SessionUnavailable:
    """Return the error of a request that gets no session id."""
    return SessionUnavailable(
        f'No session id: {why}, and session_policy="required" needs one that all instances know.', retry_after=1.0
    )
