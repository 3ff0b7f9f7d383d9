"""Keeping the sessions of this process and Redis in step: touches, and uploads of what Redis may lack.

Requests queue touches; housekeeping sends them in batches. A touch that finds another id takes it: the id that was
written first wins, so all instances agree in the end. One that finds no id uploads the local one.

After Redis may have lost data, all sessions in use are uploaded again, by all instances at the same time. Each takes
its own in random order and reads before it writes, so that a session of many instances is written by one of them. One
that finds nothing to write any more reads the rest slowly. One that finds nothing written before it does not read.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from tokenmw.redaction import Unpicklable
from tokenmw.redis.batch_pace import BatchPace
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.session_store import UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.redis.session_store import RedisSessionStore, Reply
    from tokenmw.sessions.cache import SessionCache, SessionEntry
    from tokenmw.sessions.rate_limit import NewSessions

__all__ = ["SessionSync"]

T = TypeVar("T")

_MOST: Final = 100  # sessions in one batch: a few ms of the event loop
_LEAST_READS: Final = 32
# Larger batches of uploads cost each side hardly less for each session, and between the read of a session and its
# upload another instance can upload it, too.
_LEAST_UPLOADS: Final = 8
_MOST_UPLOADS: Final = 32
_SECONDS: Final = 3.0  # of touches, and of uploads, at a time; then the rest of housekeeping has its turn
# Sessions found in a row, in random order, after which nearly all are there: uploaded by others.
_FOUND_BY_OTHERS: Final = 300
# If more than one session in that many is found, reading them first costs less than sending all.
_WORTH_A_READ: Final = 10
# A session that was stored by another instance, which had not used it for longer, expires earlier. It may, as long as
# it stays for this multiple of `session_ttl` after its last use here.
_ENOUGH_TTL: Final = 1.05


class SessionSync(Unpicklable):
    """Sends touches and uploads. The touches wait in a queue: one for each API key, and `Limits(touches=…)` in all.

    Beyond the bound a touch is dropped, and the session is touched again a quarter of `session_ttl` later.

    Attributes:
        store: The sessions in Redis.
        replaced: How many ids of this process were replaced by those that Redis has.
        uploaded: How many sessions were stored that Redis had not.
    """

    __slots__ = (
        "_cache",
        "_found_in_a_row",
        "_limit",
        "_monotonic",
        "_new_sessions",
        "_queue",
        "_read_first",
        "_reads",
        "_reupload",
        "_uploads",
        "replaced",
        "store",
        "uploaded",
    )

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
        self.replaced = self.uploaded = 0
        self._queue: dict[bytes, SessionEntry] = {}
        self._reupload: list[bytes] = []
        self._read_first = True
        self._found_in_a_row = 0
        self._reads = BatchPace(least=_LEAST_READS, most=_MOST, first=_MOST)
        self._uploads = BatchPace(least=_LEAST_UPLOADS, most=_MOST_UPLOADS)

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
        """Send the queue, for three seconds at most.

        Raises:
            RedisUnavailable: What was not sent stays in the queue.
        """
        until = self._monotonic() + _SECONDS
        waiting = list(self._queue)
        while waiting and self._monotonic() < until:
            part = waiting[: self._reads.size]
            del waiting[: len(part)]
            batch = {key: self._queue[key] for key in part if key in self._queue}
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
        for start in range(0, len(keys), _MOST):
            found = ((key, self._cache.active(key)) for key in keys[start : start + _MOST])
            await self._read(
                {key: session for key, session in found if session is not None and not session.overwrite}, touch=False
            )

    def begin_reupload(self) -> None:
        """Upload all sessions in use again; those that are found or made from now on are written to Redis anyway."""
        self._reupload = list(self._cache)
        self._found_in_a_row = 0

    async def send_reupload(self) -> None:
        """Upload what is left of a reupload, for three seconds at most; one batch if nearly all has been found.

        Raises:
            RedisUnavailable: What was not sent is left.
        """
        until = self._monotonic() + _SECONDS
        unavailable: list[bytes] = []
        try:
            while self._reupload and self._monotonic() < until:
                part = self._random_part(self._reads.size if self._found_in_a_row else self._uploads.size)
                found = ((key, self._cache.active(key)) for key in part)
                batch: dict[bytes, SessionEntry] = {
                    key: session
                    for key, session in found
                    if session is not None and (session.shared or key not in self._queue)
                }
                unavailable += await self._send(batch, touch=False)
                del self._reupload[-len(part) :]
                if self._found_in_a_row >= _FOUND_BY_OTHERS:
                    break
        finally:
            self._reupload += unavailable

    def _random_part(self, count: int) -> list[bytes]:
        """Move random keys to the end of what is to be uploaded again, and return them."""
        keys = self._reupload
        for end in range(len(keys) - 1, max(0, len(keys) - count) - 1, -1):
            other = random.randrange(end + 1)
            keys[end], keys[other] = keys[other], keys[end]
        return keys[-count:]

    async def _send(self, batch: Mapping[bytes, SessionEntry], *, touch: bool) -> set[bytes]:
        """Touch or read sessions, and upload those that Redis has not; one that it never had needs a permit.

        Return the keys whose server is unavailable.
        """
        permits: set[bytes] = set()
        stored: set[bytes] = set()
        offered = sum(not session.overwrite for session in batch.values())

        def may_upload(key: bytes, session: SessionEntry) -> bool:
            if session.shared:
                return True
            if self._new_sessions.take():
                permits.add(key)
            return key in permits

        try:
            uploads = {
                key: session
                for key, session in batch.items()
                # A session that was reset replaces an id in Redis, so it takes no permit.
                if session.overwrite
                or not (self._read_first or (touch and session.shared) or not may_upload(key, session))
            }
            reads = {key: session for key, session in batch.items() if key not in uploads}
            unavailable, absent = await self._read(reads, touch=touch)
            uploads |= {key: session for key, session in absent.items() if may_upload(key, session)}
            unavailable |= await self._upload(uploads, stored)
        finally:
            for _ in permits - stored:
                self._new_sessions.give_back()
        if offered and not unavailable:
            self._note_found(offered - len(stored), of=offered)
        return unavailable

    def _note_found(self, found: int, *, of: int) -> None:
        self._read_first = found * _WORTH_A_READ >= of
        self._found_in_a_row = self._found_in_a_row + found if found == of else 0

    async def _read(
        self, batch: Mapping[bytes, SessionEntry], *, touch: bool
    ) -> tuple[set[bytes], dict[bytes, SessionEntry]]:
        """Take the ids that Redis has.

        Return the keys whose server is unavailable, and the sessions that must be uploaded: those that are absent, and
        those that would expire too early.
        """
        if not batch:
            return set(), {}
        keys = [self.key(key, session) for key, session in batch.items()]
        unavailable: set[bytes] = set()
        absent: dict[bytes, SessionEntry] = {}
        read = partial(self._touch if touch else self.store.read, keys)
        replies = await self._paced(self._reads, read, unavailable=(UNAVAILABLE, 0.0), count=len(keys))
        now = self._monotonic()
        for (key, session), (reply, left) in zip(batch.items(), replies, strict=True):
            if reply is UNAVAILABLE:
                unavailable.add(key)
                continue
            if isinstance(reply, str):
                self.replaced += reply != session.id
                session.id, session.shared = reply, True
            if reply is None or left < _ENOUGH_TTL * self._cache.ttl - (now - session.used):
                absent[key] = session
        return unavailable, absent

    async def _touch(self, keys: Sequence[bytes]) -> list[tuple[Reply, float]]:
        return [(reply, float("inf")) for reply in await self.store.touch(keys)]

    async def _upload(self, batch: Mapping[bytes, SessionEntry], stored: set[bytes]) -> set[bytes]:
        """Upload sessions that Redis may lack: what it has wins, except over those that were reset.

        Return the keys whose server is unavailable; add those to `stored` that Redis had not.
        """
        offered = [(key, session) for key, session in batch.items() if not session.overwrite]
        unavailable = await self._overwrite({key: session for key, session in batch.items() if session.overwrite})
        while offered:
            part = offered[: self._uploads.size]
            del offered[: len(part)]
            now = self._monotonic()
            sessions = [(self.key(key, session), session.id, now - session.used) for key, session in part]
            upload = partial(self.store.upload, sessions)
            replies = await self._paced(self._uploads, upload, unavailable=UNAVAILABLE, count=len(part))
            for (key, session), (_, sent, _), reply in zip(part, sessions, replies, strict=True):
                if isinstance(reply, str):
                    self.replaced += reply != session.id
                    session.id, session.shared = reply, True
                    if reply is sent:
                        self.uploaded += 1
                        stored.add(key)
                elif reply is UNAVAILABLE:
                    unavailable.add(key)
        return unavailable

    async def _paced(
        self, pace: BatchPace, send: Callable[[], Awaitable[list[T]]], *, unavailable: T, count: int
    ) -> list[T]:
        """Send a batch; if only its server of a cluster is unavailable, return that for each session."""
        try:
            return await pace.run(send, count=count)
        except RedisUnavailable:
            if not self.store.other_servers_usable:
                raise
            return [unavailable] * count

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
