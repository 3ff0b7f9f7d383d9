"""Session ids in Redis: get or create in one round trip, touches and offers by the hundred.

What is found sealed by a secret that is on its way out is sealed anew, so that a session in use outlives a rotation.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from tokenmw.redis.connection import AWAY
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.sealing import Sealer

__all__ = ["AWAY", "Answer", "RedisSessionStore"]

Answer: TypeAlias = object  # an id, None, or AWAY
_KEEP: Final = ""  # as a time to live: what is left


class RedisSessionStore:
    """Runs the session scripts on Redis.

    Operations may raise `RedisUnavailable`, and `Unreadable` for a value that is sealed by an unknown secret; a
    damaged one is replaced.
    """

    __slots__ = ("_connection", "_names", "_seals", "_ttl", "on_unreadable")

    def __init__(self, connection: RedisConnection, *, names: KeyNames, seals: Sealer, ttl: float) -> None:
        self._connection = connection
        self._names = names
        self._seals = seals
        self._ttl = int(ttl * 1000)
        self.on_unreadable: Callable[[str, str], None] = lambda _kind, _why: None

    def key(self, api_key: bytes) -> bytes:
        """Return the Redis key of an API key's session."""
        return self._names.key(self._names.digest("session", api_key), "session")

    async def get_or_create(self, key: bytes, candidate: str) -> str:
        """Return the id that is there, else make it the candidate; either way its time starts again.

        A candidate that reaches the server too late for the caller is not taken, however long the server was frozen.
        """
        sealed = self._seal(key, candidate)
        began, over = asyncio.get_running_loop().time(), self._connection.over_at(key)
        value = await self._connection.run("session", (key,), (sealed, self._ttl, "", "" if over is None else over))
        if isinstance(value, int):  # somebody does wait: its clock is not what we took it for
            self._connection.learn_time(key, value, began=began)
            value = await self._connection.run("session", (key,), (sealed, self._ttl))
        if value == sealed:
            return candidate
        try:
            found = self._open(key, value)
        except Unreadable as error:
            if error.why == "unknown-key":
                raise
        else:
            await self._seal_anew([(key, value, found)])
            return found
        value = await self._connection.run("replace", (key,), (value, sealed, self._ttl))
        return self._open(key, value)

    def doubtful(self, key: bytes) -> bool:
        """Return whether Redis may well take a candidate for this key and its reply be lost."""
        return self._connection.doubtful(key)

    async def put(self, key: bytes, session_id: str) -> None:
        """Make it this id, whatever was there."""
        sealed = self._seal(key, session_id)
        await self._connection.execute(lambda client: client.set(key, sealed, px=self._ttl), key=key, writes=True)

    async def touch(self, keys: Sequence[bytes]) -> list[Answer]:
        """Start the time of sessions again, in one pipeline.

        Return their ids, None for those that are not there, `AWAY` for those whose server is out.
        """
        values = await self._connection.pipeline([("GETEX", key, "PX", self._ttl) for key in keys])
        answers: list[Answer] = []
        opened: list[tuple[bytes, bytes, str]] = []
        for key, value in zip(keys, values, strict=True):
            try:
                answers.append(self._read(key, value, opened))
            except Unreadable:
                answers.append(None)  # an offer puts that right
        await self._seal_anew(opened)
        return answers

    async def offer(self, offers: Sequence[tuple[bytes, str, float]]) -> list[Answer]:
        """Offer ids that Redis may not have, each with the seconds for which it has been idle, in one pipeline.

        Return the ids that hold from now on: what Redis has wins. None where it is one key's own fault, `AWAY` where
        the server is out.
        """
        calls = [
            (key, (self._seal(key, session_id), max(1_000, self._ttl - int(idle * 1000)), "lengthen"))
            for key, session_id, idle in offers
        ]
        values = await self._connection.run_each("session", calls)
        answers: list[Answer] = []
        opened: list[tuple[bytes, bytes, str]] = []
        damaged: list[tuple[int, bytes]] = []
        for number, (key, session_id, _idle) in enumerate(offers):
            value = values[number]
            if value == calls[number][1][0]:
                answers.append(session_id)
                continue
            try:
                answers.append(self._read(key, value, opened))
            except Unreadable as error:
                # Sealed by a secret of other instances: theirs stays there, ours here.
                answers.append(session_id)
                if error.why == "damaged":
                    damaged.append((number, value))
        await self._seal_anew(opened)
        for number, value in damaged:
            key, (sealed, life, _) = calls[number]
            now_there = await self._connection.run("replace", (key,), (value, sealed, life))
            answers[number] = self._open(key, now_there)
        return answers

    def _read(self, key: bytes, value: Any, opened: list[tuple[bytes, bytes, str]]) -> Answer:
        if not isinstance(value, bytes):
            return AWAY if value is AWAY else None  # absent, or of another type
        found = self._open(key, value)
        opened.append((key, value, found))
        return found

    async def _seal_anew(self, found: Sequence[tuple[bytes, bytes, str]]) -> None:
        calls = [
            (key, (value, self._seal(key, session_id), _KEEP))
            for key, value, session_id in found
            if not self._seals.current(value)
        ]
        if calls:
            with suppress(RedisUnavailable):  # the next touch does it
                await self._connection.run_each("replace", calls)

    def _seal(self, key: bytes, session_id: str) -> bytes:
        return self._seals.seal(UUID(session_id).bytes, key=key, version=0)

    def _open(self, key: bytes, value: bytes) -> str:
        try:
            _version, body = self._seals.open(value, key=key)
            if len(body) != 16:
                raise Unreadable("damaged")
        except Unreadable as error:
            self.on_unreadable("session", error.why)
            raise
        return str(UUID(bytes=body))
