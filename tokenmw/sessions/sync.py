"""Keeping sessions alive in Redis: queued by requests, sent in batches by housekeeping.

A touch that finds another id takes it: what was written first wins, and all instances come to agree. One that finds
nothing writes ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.session_store import UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.clock import Clock
    from tokenmw.redis.session_store import RedisSessionStore
    from tokenmw.sessions.cache import SessionEntry
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.sessions.cache import SessionEntry
    from tokenmw.sessions.manager import SessionManager

__all__ = ["BATCH", "SessionReupload", "SessionTouches"]

BATCH: Final = 100  # sessions in one pipeline: a few ms of the event loop, and well within one command's deadline


class SessionTouches:
    """The touches that wait to be sent, one for each API key and `limit` in all.

    Beyond it the next one is lost, and the session is touched again a twentieth of its time later.
    """

    __slots__ = ("_clock", "_limit", "_store", "_waiting")

    def __init__(self, store: RedisSessionStore, *, limit: int, clock: Clock) -> None:
        self._store = store
        self._limit = limit
        self._clock = clock
        self._waiting: dict[bytes, SessionEntry] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, api_key: bytes) -> bool:
        return api_key in self._waiting

    @property
    def unshared(self) -> int:
        """How many of them are of sessions that Redis has yet to be told of."""
        return sum(not session.shared for session in self._waiting.values())

    def add(self, api_key: bytes, session: SessionEntry) -> None:
        """Queue a touch."""
        if api_key in self._waiting or len(self._waiting) < self._limit:
            self._waiting[api_key] = session

    async def send(self) -> None:
        """Send all that waits.

        Raises:
            RedisUnavailable: Redis is away; what was not sent waits on.
        """
        waiting = list(self._waiting)
        for start in range(0, len(waiting), BATCH):
            batch = {key: self._waiting[key] for key in waiting[start : start + BATCH] if key in self._waiting}
            away = await self._touch(batch)
            for api_key, session in batch.items():
                if api_key not in away and self._waiting.get(api_key) is session:
                    del self._waiting[api_key]

    async def _touch(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        """Touch what Redis has, offer it the rest. Return the keys whose server is out."""
        plain = [api_key for api_key, session in batch.items() if session.shared]
        found = await self._store.touch([self._store.key(api_key) for api_key in plain]) if plain else []
        away: set[bytes] = set()
        rest = {api_key: session for api_key, session in batch.items() if not session.shared}
        for api_key, answer in zip(plain, found, strict=True):
            if isinstance(answer, str):
                batch[api_key].id = answer
            elif answer is UNAVAILABLE:
                away.add(api_key)
            else:
                rest[api_key] = batch[api_key]
        return away | await self.offer(rest)

    async def offer(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        """Offer sessions that Redis may not have: what it has wins, but for those that were reset.

        Return the keys whose server is out.

        Raises:
            RedisUnavailable: All of them are.
        """
        offered = [(api_key, session) for api_key, session in batch.items() if not session.overwrite]
        away = await self._overwrite({key: session for key, session in batch.items() if session.overwrite})
        now = self._clock.monotonic()
        answers = await self._store.upload(
            [(self._store.key(api_key), session.id, now - session.used) for api_key, session in offered]
        )
        for (api_key, session), answer in zip(offered, answers, strict=True):
            if isinstance(answer, str):
                session.id, session.shared = answer, True
            elif answer is UNAVAILABLE:
                away.add(api_key)
        return away

    async def _overwrite(self, batch: Mapping[bytes, SessionEntry]) -> set[bytes]:
        away: set[bytes] = set()
        lost: RedisUnavailable | None = None
        for api_key, session in batch.items():
            try:
                await self._store.put(self._store.key(api_key), session.id)
            except RedisUnavailable as error:
                if error.reason != "response":  # else it is this one key's fault, which waiting does not mend
                    away.add(api_key)
                    lost = error
            else:
                session.overwrite, session.shared = False, True
        if lost is not None and len(away) == len(batch):
            raise lost
        return away


_AT_ONCE: Final = 3.0  # seconds; then the rest of housekeeping has its turn


class SessionReupload:
    """Goes through the local copies once for each time that `begin` is called, however long Redis is away meanwhile."""

    __slots__ = ("_clock", "_left", "_manager", "_touches")

    def __init__(self, manager: SessionManager, touches: SessionTouches, *, clock: Clock) -> None:
        self._manager = manager
        self._touches = touches
        self._clock = clock
        self._left: list[bytes] = []

    def __len__(self) -> int:
        return len(self._left)

    def begin(self) -> None:
        """Offer all that is held now. What is found or made later is written to Redis by itself."""
        self._left = self._manager.held()

    async def send(self) -> None:
        """Send what is left, for three seconds at most.

        Raises:
            RedisUnavailable: Redis is away; what was not sent is left.
        """
        until = self._clock.monotonic() + _AT_ONCE
        away: list[bytes] = []
        try:
            while self._left and self._clock.monotonic() < until:
                part = self._left[-BATCH:]
                found = ((api_key, self._manager.to_offer(api_key)) for api_key in part)
                batch: dict[bytes, SessionEntry] = {key: session for key, session in found if session is not None}
                away += await self._touches.offer(batch)
                del self._left[-len(part) :]
        finally:
            self._left += away
