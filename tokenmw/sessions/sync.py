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
    from collections.abc import Mapping

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.redis.session_store import RedisSessionStore
    from tokenmw.sessions.cache import SessionCache, SessionEntry
    from tokenmw.sessions.rate_limit import TokenBucket

__all__ = ["SessionSync"]

_BATCH: Final = 100  # sessions in one pipeline: a few ms of the event loop, and well within one command's deadline
_REUPLOAD_SECONDS: Final = 3.0  # at a time; then the rest of housekeeping has its turn


class SessionSync(Unpicklable):
    """Sends touches and uploads. The touches wait in a queue: one for each API key, and `Limits(touches=…)` in all.

    Beyond the bound a touch is dropped, and the session is touched again a twentieth of its time later.
    """

    __slots__ = ("_cache", "_limit", "_monotonic", "_new_sessions", "_queue", "_reupload", "store")

    def __init__(
        self,
        store: RedisSessionStore,
        *,
        cache: SessionCache,
        new_sessions: TokenBucket,
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

    def queue(self, api_key: bytes, session: SessionEntry) -> None:
        """Queue a touch, or an upload if Redis has not had the session, which takes a permit for a new session."""
        if self._may_write(session) and (api_key in self._queue or len(self._queue) < self._limit):
            self._queue[api_key] = session

    async def send_touches(self) -> None:
        """Send the queue.

        Raises:
            RedisUnavailable: What was not sent stays in the queue.
        """
        waiting = list(self._queue)
        for start in range(0, len(waiting), _BATCH):
            batch = {key: self._queue[key] for key in waiting[start : start + _BATCH] if key in self._queue}
            unavailable = await self._touch(batch)
            for api_key, session in batch.items():
                if api_key not in unavailable and self._queue.get(api_key) is session:
                    del self._queue[api_key]

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
                found = ((api_key, self._to_upload(api_key)) for api_key in part)
                batch: dict[bytes, SessionEntry] = {key: session for key, session in found if session is not None}
                unavailable += await self._upload(batch)
                del self._reupload[-len(part) :]
        finally:
            self._reupload += unavailable

    def _may_write(self, session: SessionEntry) -> bool:
        # Only a session that was never in Redis takes a permit; a reset one replaces an id there.
        return session.shared or session.overwrite or self._new_sessions.take()

    def _to_upload(self, api_key: bytes) -> SessionEntry | None:
        session = self._cache.active(api_key, self._monotonic())
        if session is None or (not session.shared and api_key in self._queue):
            return None
        return session if self._may_write(session) else None

    async def _touch(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        """Touch what Redis has, upload the rest. Return the keys whose server is unavailable."""
        shared = [api_key for api_key, session in batch.items() if session.shared]
        replies = await self.store.touch([self.store.key(api_key) for api_key in shared]) if shared else []
        unavailable: set[bytes] = set()
        rest = {api_key: session for api_key, session in batch.items() if not session.shared}
        for api_key, reply in zip(shared, replies, strict=True):
            if isinstance(reply, str):
                batch[api_key].id = reply
            elif reply is UNAVAILABLE:
                unavailable.add(api_key)
            else:
                rest[api_key] = batch[api_key]
        return unavailable | await self._upload(rest)

    async def _upload(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        """Upload sessions that Redis may lack: what it has wins, except over those that were reset.

        Return the keys whose server is unavailable; raise `RedisUnavailable` if all are.
        """
        offered = [(api_key, session) for api_key, session in batch.items() if not session.overwrite]
        unavailable = await self._overwrite({key: session for key, session in batch.items() if session.overwrite})
        now = self._monotonic()
        replies = await self.store.upload(
            [(self.store.key(api_key), session.id, now - session.used) for api_key, session in offered]
        )
        for (api_key, session), reply in zip(offered, replies, strict=True):
            if isinstance(reply, str):
                session.id, session.shared = reply, True
            elif reply is UNAVAILABLE:
                unavailable.add(api_key)
        return unavailable

    async def _overwrite(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        unavailable: set[bytes] = set()
        last_error: RedisUnavailable | None = None
        for api_key, session in batch.items():
            try:
                await self.store.put(self.store.key(api_key), session.id)
            except RedisUnavailable as error:
                if error.reason != "response":  # an error of this one key, which waiting does not fix
                    unavailable.add(api_key)
                    last_error = error
            else:
                session.overwrite, session.shared = False, True
        if last_error is not None and len(unavailable) == len(batch):
            raise last_error
        return unavailable
