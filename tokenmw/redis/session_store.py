"""Session ids in Redis: get or create in one round trip, touches and uploads in batches.

Values that are sealed with a secret that is being rotated out are sealed again with the first one, so that a session
in use outlives a rotation.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from tokenmw.redaction import Unpicklable
from tokenmw.redis.connection import UNAVAILABLE
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.sealing import Sealer

__all__ = ["UNAVAILABLE", "RedisSessionStore", "Reply"]

Reply: TypeAlias = object  # an id, None, or UNAVAILABLE
_KEEP_TTL: Final = ""


class RedisSessionStore(Unpicklable):
    """Runs the session scripts. Each operation may raise `RedisUnavailable`.

    Args:
        connection: The connection.
        names: The names of keys.
        sealer: Seals and opens values.
        ttl: Seconds after which Redis forgets an id that is not used.
        on_unreadable: Is called with "session" and the reason for each value that does not open.
    """

    __slots__ = ("_connection", "_names", "_on_unreadable", "_sealer", "_ttl")

    def __init__(
        self,
        connection: RedisConnection,
        *,
        names: KeyNames,
        sealer: Sealer,
        ttl: float,
        on_unreadable: Callable[[str, str], None],
    ) -> None:
        self._connection = connection
        self._names = names
        self._sealer = sealer
        self._ttl = int(ttl * 1000)
        self._on_unreadable = on_unreadable

    def key(self, api_key: bytes) -> bytes:
        """Return the Redis key of an API key's session."""
        return self._names.key(self._names.digest("session", api_key), "session")

    async def get_or_create(self, key: bytes, candidate: str) -> str:
        """Return the id of a key, or store the candidate if there is none. Its TTL starts again in both cases.

        A candidate that reaches the server after the caller has timed out is not stored, however long the server hung.

        Raises:
            Unreadable: The id is sealed with an unknown secret. (A damaged one is replaced.)
        """
        sealed = self._seal(key, candidate)
        began, deadline = asyncio.get_running_loop().time(), self._connection.server_deadline(key)
        args = (sealed, self._ttl, "", "" if deadline is None else deadline)
        value = await self._connection.run("session", (key,), args)
        if isinstance(value, int):  # refused as too late, yet the caller still waits: the clock offset was wrong
            self._connection.note_server_time(key, value, began=began)
            value = await self._connection.run("session", (key,), (sealed, self._ttl))
        if value == sealed:
            return candidate
        try:
            found = self._open(key, value)
        except Unreadable as error:
            if error.reason == "unknown-key":
                raise
        else:
            await self._reseal([(key, value, found)])
            return found
        value = await self._connection.run("replace", (key,), (value, sealed, self._ttl))
        return self._open(key, value)

    def reply_may_be_lost(self, key: bytes) -> bool:
        """Return whether Redis may store a candidate for this key although its reply is lost."""
        return self._connection.reply_may_be_lost(key)

    async def put(self, key: bytes, session_id: str) -> None:
        """Store an id in place of any other."""
        sealed = self._seal(key, session_id)
        await self._connection.execute(lambda client: client.set(key, sealed, px=self._ttl), key=key, writes=True)

    async def touch(self, keys: Sequence[bytes]) -> list[Reply]:
        """Restart the TTL of sessions, in one batch.

        Return their ids, None for those that are absent or unreadable, `UNAVAILABLE` for those whose server is.
        """
        values = await self._connection.pipeline([("GETEX", key, "PX", self._ttl) for key in keys])
        replies: list[Reply] = []
        opened: list[tuple[bytes, bytes, str]] = []
        for key, value in zip(keys, values, strict=True):
            try:
                replies.append(self._read(key, value, opened))
            except Unreadable:
                replies.append(None)  # the upload that follows replaces it
        await self._reseal(opened)
        return replies

    async def upload(self, sessions: Sequence[tuple[bytes, str, float]]) -> list[Reply]:
        """Store ids that Redis may not have, each with the seconds for which it has been idle, in one batch.

        Return the ids to use from now on: an id that Redis has takes precedence. None if the failure is that key's own,
        `UNAVAILABLE` if its server is unavailable.
        """
        calls = [
            (key, (self._seal(key, session_id), max(1_000, self._ttl - int(idle * 1000)), "lengthen"))
            for key, session_id, idle in sessions
        ]
        values = await self._connection.run_for_each("session", calls)
        replies: list[Reply] = []
        opened: list[tuple[bytes, bytes, str]] = []
        damaged: list[tuple[int, bytes]] = []
        for number, (key, session_id, _idle) in enumerate(sessions):
            value = values[number]
            if value == calls[number][1][0]:
                replies.append(session_id)
                continue
            try:
                replies.append(self._read(key, value, opened))
            except Unreadable as error:
                # Sealed with a secret of other instances: they keep that id, this instance keeps its own.
                replies.append(session_id)
                if error.reason == "damaged":
                    damaged.append((number, value))
        await self._reseal(opened)
        for number, value in damaged:
            key, (sealed, ttl, _) = calls[number]
            stored = await self._connection.run("replace", (key,), (value, sealed, ttl))
            replies[number] = self._open(key, stored)
        return replies

    def _read(self, key: bytes, value: Any, opened: list[tuple[bytes, bytes, str]]) -> Reply:
        if not isinstance(value, bytes):
            return UNAVAILABLE if value is UNAVAILABLE else None  # None: absent, or of another type
        found = self._open(key, value)
        opened.append((key, value, found))
        return found

    async def _reseal(self, found: Sequence[tuple[bytes, bytes, str]]) -> None:
        calls = [
            (key, (value, self._seal(key, session_id), _KEEP_TTL))
            for key, value, session_id in found
            if not self._sealer.is_current(value)
        ]
        if calls:
            with suppress(RedisUnavailable):  # the next touch does it
                await self._connection.run_for_each("replace", calls)

    def _seal(self, key: bytes, session_id: str) -> bytes:
        return self._sealer.seal(UUID(session_id).bytes, key=key, version=0)

    def _open(self, key: bytes, value: bytes) -> str:
        try:
            _version, body = self._sealer.open(value, key=key)
            if len(body) != 16:
                raise Unreadable("damaged")
        except Unreadable as error:
            self._on_unreadable("session", error.reason)
            raise
        return str(UUID(bytes=body))
