"""Keeping the sessions of this process and Redis in step: touches, and uploads of what Redis may lack.

Requests queue touches; housekeeping sends them in batches. A touch that finds another id takes it: the id that was
written first wins, so all instances agree in the end. One that finds no id uploads the local one. After Redis may have
lost data, all sessions in use are uploaded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.session_store import UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.redis.session_store import RedisSessionStore
    from tokenmw.sessions.cache import SessionCache, SessionEntry
    from tokenmw.sessions.rate_limit import NewSessions

__all__ = ["SessionSync"]

_BATCH: Final = 100  # sessions in one pipeline: a few ms of the event loop, and well within one command's deadline
_REUPLOAD_SECONDS: Final = 3.0  # at a time; then the rest of housekeeping has its turn


class SessionSync(Unpicklable):
    """Sends touches and uploads. The touches wait in a queue: one for each API key, and `Limits(touches=…)` in all.

    Beyond the bound a touch is dropped, and the session is touched again a quarter of `session_ttl` later.
    """

    __slots__ = ("_cache", "_limit", "_monotonic", "_new_sessions", "_queue", "_reupload", "store")

    def __init__(
        self,
        store: RedisSessionStore,
        *,
        cache: SessionCache,
        new_sessions: NewSessions,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.store = store
        self._cache = cache
        self._new_sessions = new_sessions
        self._limit = limits.touches
        self._monotonic = clock.monotonic
        self._queue: dict[bytes, SessionEntry] = {}
        self._reupload: list[bytes] = []

    @property
    def touches(self) -> int:
        """How many touches wait to be sent."""
        return len(self._queue)

    @property
    def unshared(self) -> int:
        """How many sessions wait to be uploaded."""
        return sum(not session.shared for session in self._queue.values()) + len(self._reupload)

    def queue(self, key: bytes, session: SessionEntry) -> None:
        """Queue the session of a local key: to be touched, or to be compared with Redis and uploaded if it has none.

        Sessions that Redis has not had fill half of the queue at most, so that a flood of new keys leaves room.
        """
        limit = self._limit if session.shared or session.overwrite else self._limit // 2
        if key in self._queue or len(self._queue) < limit:
            self._queue[key] = session

    async def send_touches(self) -> None:
        """Send the queue.

        Raises:
            RedisUnavailable: What was not sent stays in the queue.
        """
        waiting = list(self._queue)
        for start in range(0, len(waiting), _BATCH):
            batch = {key: self._queue[key] for key in waiting[start : start + _BATCH] if key in self._queue}
            unavailable = await self._send(batch, touch=True)
            for key, session in batch.items():
                if key not in unavailable and self._queue.get(key) is session:
                    del self._queue[key]

    def key(self, key: bytes, session: SessionEntry) -> bytes:
        """Return the key in Redis of the session of a local key."""
        return session.redis_key or self.store.key(key)

    async def read_again(self, keys: Sequence[bytes]) -> None:
        """Take the ids that Redis has for the sessions of these local keys, except for those that were reset here.

        Raises:
            RedisUnavailable: The next touch takes them.
        """
        for start in range(0, len(keys), _BATCH):
            found = ((key, self._cache.active(key)) for key in keys[start : start + _BATCH])
            await self._read(
                {key: session for key, session in found if session is not None and not session.overwrite}, touch=False
            )

    def begin_reupload(self) -> None:
        """Upload all sessions in use again; those that are found or made from now on are written to Redis anyway."""
        self._reupload = list(self._cache)

    async def send_reupload(self) -> None:
        """Upload what is left of a reupload, for three seconds at most.

        Raises:
            RedisUnavailable: What was not sent is left.
        """
        until = self._monotonic() + _REUPLOAD_SECONDS
        unavailable: list[bytes] = []
        try:
            while self._reupload and self._monotonic() < until:
                part = self._reupload[-_BATCH:]
                found = ((key, self._cache.active(key)) for key in part)
                batch: dict[bytes, SessionEntry] = {
                    key: session
                    for key, session in found
                    if session is not None and (session.shared or key not in self._queue)
                }
                unavailable += await self._send(batch, touch=False)
                del self._reupload[-len(part) :]
        finally:
            self._reupload += unavailable

    async def _send(self, batch: Mapping[bytes, SessionEntry], *, touch: bool) -> set[bytes]:
        """Touch or upload what Redis has had, and upload the others, each with a permit; without one only read it.

        Return the keys whose server is unavailable.
        """
        # A session that was reset replaces an id in Redis, so it takes no permit.
        new = {
            key: session.id
            for key, session in batch.items()
            if not session.shared and not session.overwrite and self._new_sessions.take()
        }
        try:
            uploads = {
                key: session
                for key, session in batch.items()
                if session.overwrite or key in new or (session.shared and not touch)
            }
            reads = {key: session for key, session in batch.items() if key not in uploads}
            unavailable, absent = await self._read(reads, touch=touch)
            return unavailable | await self._upload(uploads | absent)
        finally:
            for key, session_id in new.items():
                if not batch[key].shared or batch[key].id != session_id:
                    self._new_sessions.give_back()

    async def _read(
        self, batch: Mapping[bytes, SessionEntry], *, touch: bool
    ) -> tuple[set[bytes], dict[bytes, SessionEntry]]:
        """Take the ids that Redis has. Return the keys whose server is unavailable, and the sessions it has lost."""
        if not batch:
            return set(), {}
        keys = [self.key(key, session) for key, session in batch.items()]
        unavailable: set[bytes] = set()
        lost: dict[bytes, SessionEntry] = {}
        for (key, session), reply in zip(batch.items(), await self.store.touch(keys, restart=touch), strict=True):
            if isinstance(reply, str):
                session.id, session.shared = reply, True
            elif reply is UNAVAILABLE:
                unavailable.add(key)
            elif session.shared:
                lost[key] = session
        return unavailable, lost

    async def _upload(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        """Upload sessions that Redis may lack: what it has wins, except over those that were reset.

        Return the keys whose server is unavailable; raise `RedisUnavailable` if all are.
        """
        offered = [(key, session) for key, session in batch.items() if not session.overwrite]
        unavailable = await self._overwrite({key: session for key, session in batch.items() if session.overwrite})
        now = self._monotonic()
        replies = await self.store.upload(
            [(self.key(key, session), session.id, now - session.used) for key, session in offered]
        )
        for (key, session), reply in zip(offered, replies, strict=True):
            if isinstance(reply, str):
                session.id, session.shared = reply, True
            elif reply is UNAVAILABLE:
                unavailable.add(key)
        return unavailable

    async def _overwrite(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        unavailable: set[bytes] = set()
        last_error: RedisUnavailable | None = None
        for key, session in batch.items():
            try:
                await self.store.put(self.key(key, session), session.id, session.reset)
            except RedisUnavailable as error:
                if error.reason != "response":  # an error of this one key, which waiting does not fix
                    unavailable.add(key)
                    last_error = error
            else:
                session.overwrite, session.shared = False, True
        if last_error is not None and len(unavailable) == len(batch):
            raise last_error
        return unavailable
