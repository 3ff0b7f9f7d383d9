"""Session ids in Redis: get or create, touches and uploads, each in batches of one round trip.

Values that are sealed with a secret that is being rotated out are sealed again with the first one, so that a session
in use outlives a rotation.

A derived id is the same whenever its key comes back, so a reset has to last longer than the session. What every
instance needs to make the id again is stored beside the session, under `<namespace>:v1:{<digest>}:reset`, in the same
script. It is only read when a session is absent: then the id of the reset is stored, in a second round trip.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tokenmw.redaction import Unpicklable
from tokenmw.redis.connection import UNAVAILABLE
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.scripts import script_command
from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenmw.redis.connection import Command, RedisConnection
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.sealing import Sealer

__all__ = ["UNAVAILABLE", "RedisSessionStore", "Reply", "uuid_text"]

Reply: TypeAlias = object  # an id, None, UNAVAILABLE or an Unreadable
_KEEP_TTL: Final = ""
# Bytes; a sealed id has 57. A longer value was written by somebody else. It is read whole, because reading a part and
# restarting the TTL are two commands, which take twice the time here, and a script takes three times as long there.
_LONGEST: Final = 256
_LONGEST_COMPARED: Final = 1 << 20  # what `replace` compares; for it, a longer value counts as absent
_STORED: Final = 0  # the reply of the script that has stored the candidate
_ABSENT: Final = -2  # the reply of PTTL
# An id that is stored already may expire earlier than asked for, by this part of the whole TTL: instances use a session
# at different times, and each of them would write for some seconds.
_SPARE: Final = 6
_RESET_LASTS: Final = 365 * 86_400_000  # ms, beyond the session's TTL


class RedisSessionStore(Unpicklable):
    """Runs the session scripts. Each operation may raise `RedisUnavailable`.

    Args:
        connection: The connection.
        names: The names of keys.
        sealer: Seals and opens values.
        ttl: Seconds after which Redis forgets an id that is not used.
        on_unreadable: Is called with "session" and the reason for each value that does not open.
        hints: The channel on which an id that replaces another one is announced; b"" for none.
        after_reset: Returns the id of a key, from the key and what is kept of its reset; None if that is not genuine.
            Without it, resets are not kept.
    """

    __slots__ = ("_after_reset", "_connection", "_hints", "_names", "_on_unreadable", "_sealer", "_ttl")

    def __init__(
        self,
        connection: RedisConnection,
        *,
        names: KeyNames,
        sealer: Sealer,
        ttl: float,
        on_unreadable: Callable[[str, str], None],
        hints: bytes = b"",
        after_reset: Callable[[bytes, bytes], str | None] | None = None,
    ) -> None:
        self._after_reset = after_reset
        self._connection = connection
        self._hints = hints
        self._names = names
        self._sealer = sealer
        self._ttl = int(ttl * 1000)
        self._on_unreadable = on_unreadable

    def key(self, api_key: bytes) -> bytes:
        """Return the Redis key of an API key's session."""
        return self._names.key(self._names.digest("session", api_key), "session")

    async def get_or_create(self, sights: Sequence[tuple[bytes, str | None]]) -> list[Reply]:
        """Return the id of each key, or store its candidate if Redis has none. The TTL starts again in both cases.

        All are one round trip. The reply is the candidate, the same object, only if it was stored; an id that Redis had
        may be equal to it. None in place of a candidate creates nothing, and the reply is None if Redis has no id.
        A candidate that reaches the server after the caller has timed out is not stored, however long the server hung.
        `UNAVAILABLE` stands for the id of a key whose server is, and an `Unreadable` for one that is sealed with an
        unknown secret. (A damaged one is replaced.) A key whose session has expired since it was reset has the id of
        the reset, also without a candidate.
        """
        keys = [key for key, _ in sights]
        sealed = [None if candidate is None else self._seal(key, candidate) for key, candidate in sights]
        began = asyncio.get_running_loop().time()
        values = await self._values(keys, sealed)
        # Refused as too late, yet the caller still waits: the clock offset was wrong.
        late = [number for number, value in enumerate(values) if isinstance(value, int) and value != _STORED]
        for number in late:
            self._connection.note_server_time(keys[number], values[number], began=began)
        again = [self._creation(keys[number], sealed[number] or b"") for number in late]
        try:
            stored = await self._connection.pipeline(again) if again else []
        except RedisUnavailable:
            stored = [UNAVAILABLE] * len(late)  # the other replies of the batch are good
        for number, value in zip(late, stored, strict=True):
            values[number] = value
        await self._follow_resets(
            values, [(key, ours or b"", self._ttl) for key, ours in zip(keys, sealed, strict=True)]
        )
        replies: list[Reply] = []
        opened: list[tuple[bytes, bytes, str]] = []
        for (key, candidate), ours, value in zip(sights, sealed, values, strict=True):
            if value == _STORED:
                replies.append(candidate)
                continue
            try:
                replies.append(self._read(key, value, opened))
            except Unreadable as error:
                if error.reason == "unknown-key":
                    replies.append(error)
                elif ours is None:
                    replies.append(None)
                    await self._delete_long(key, value)
                else:
                    replies.append(await self._replaced(key, value, ours, self._ttl))
        await self._reseal(opened, background=False)
        return replies

    def reply_may_be_lost(self, key: bytes) -> bool:
        """Return whether Redis may store a candidate for this key although its reply is lost."""
        return self._connection.reply_may_be_lost(key)

    async def put(self, key: bytes, session_id: str, reset: bytes = b"") -> None:
        """Store an id in place of any other, with what is kept of the reset if there is anything, and announce it."""
        sealed = self._seal(key, session_id)
        if reset:
            args = (sealed, self._ttl, self._hints, reset, self._reset_ttl)
            await self._connection.run("put", (key, _reset_key(key)), args)
        else:
            await self._connection.run("put", (key,), (sealed, self._ttl, self._hints))

    @property
    def other_servers_usable(self) -> bool:
        """Whether other servers of a cluster are in use, although one of them is unavailable."""
        return not self._connection.one_slot and self._connection.usable

    async def touch(self, keys: Sequence[bytes]) -> list[Reply]:
        """Restart the TTL of sessions, in one batch.

        Return their ids, None for those that are absent or unreadable, `UNAVAILABLE` for those whose server is.
        """
        commands: list[Command] = [("GETEX", key, "PX", self._ttl) for key in keys]
        return await self._read_all(keys, await self._connection.pipeline(commands, background=True))

    async def read(self, keys: Sequence[bytes]) -> list[tuple[Reply, float]]:
        """Read sessions, in one batch. Return what `touch` does, each with the seconds until Redis forgets the id."""
        commands = [command for key in keys for command in (("GET", key), ("PTTL", key))]
        values = await self._connection.pipeline(commands, background=True)
        left = [value / 1000 if isinstance(value, int) else 0.0 for value in values[1::2]]
        del values[1::2]
        return list(zip(await self._read_all(keys, values), left, strict=True))

    async def _read_all(self, keys: Sequence[bytes], values: list[Any]) -> list[Reply]:
        replies: list[Reply] = []
        opened: list[tuple[bytes, bytes, str]] = []
        for number, key in enumerate(keys):
            value, values[number] = values[number], None
            try:
                replies.append(self._read(key, value, opened))
            except Unreadable:
                replies.append(None)  # the upload that follows replaces it
                await self._delete_long(key, value)
        await self._reseal(opened)
        return replies

    async def upload(self, sessions: Sequence[tuple[bytes, str, float]]) -> list[Reply]:
        """Store ids that Redis may not have, each with the seconds for which it has been idle, in one batch.

        Return the ids to use from now on: the same object if it was stored, else the id that Redis has, which takes
        precedence, and so does that of a reset. None if the failure is that key's own, `UNAVAILABLE` if its server is
        unavailable.
        """
        calls = [
            (key, self._seal(key, session_id), max(1_000, self._ttl - int(idle * 1000)))
            for key, session_id, idle in sessions
        ]
        values = await self._store_absent(calls) if calls else []
        await self._follow_resets(values, calls)
        replies: list[Reply] = []
        opened: list[tuple[bytes, bytes, str]] = []
        damaged: list[tuple[int, bytes]] = []
        for number, (key, session_id, _idle) in enumerate(sessions):
            value = values[number]
            if value == _STORED:
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
            key, sealed, ttl = calls[number]
            reply = await self._replaced(key, value, sealed, ttl)
            replies[number] = sessions[number][1] if isinstance(reply, Unreadable) else reply
        return replies

    async def _store_absent(self, calls: Sequence[tuple[bytes, bytes, int]]) -> list[Any]:
        """Store each value whose key has none and was not reset. Return what session.lua does for each."""
        # SET, and GET and PTTL of a key that exists, take half of the script's time. The script is for keys that were
        # reset, for values that are not this package's, and for those that would expire too early.
        reset: list[bool] = [False] * len(calls)
        if self._after_reset is not None:
            resets = await self._connection.pipeline(
                [("PTTL", _reset_key(key)) for key, _, _ in calls], background=True
            )
            reset = [left != _ABSENT for left in resets]
        plain = [number for number, was_reset in enumerate(reset) if not was_reset]
        values: list[Any] = [None] * len(calls)
        commands: list[Command] = [
            ("SET", key, sealed, "PX", ttl, "NX") for key, sealed, ttl in map(calls.__getitem__, plain)
        ]
        stored = await self._connection.pipeline(commands, background=True) if commands else []
        for number, value in zip(plain, stored, strict=True):
            values[number] = value if value is UNAVAILABLE or value is None else _STORED
        refused = [number for number in plain if values[number] is None]
        for number, (value, left) in zip(refused, await self._found([calls[n][0] for n in refused]), strict=True):
            long_enough = left >= calls[number][2] - self._ttl // _SPARE
            if value is UNAVAILABLE or (isinstance(value, bytes) and 0 < len(value) <= _LONGEST and long_enough):
                values[number] = value
        rest = [number for number, value in enumerate(values) if value is None]
        for number, value in zip(
            rest, await self._good([self._session(*calls[n], "lengthen") for n in rest]), strict=True
        ):
            values[number] = value
        return values

    async def _found(self, keys: Sequence[bytes]) -> list[tuple[Any, float]]:
        """Return the value of each key and the ms for which it lasts."""
        replies = await self._good([command for key in keys for command in (("GET", key), ("PTTL", key))])
        return [
            (value, left if isinstance(left, int) else 0)
            for value, left in zip(replies[::2], replies[1::2], strict=True)
        ]

    async def _good(self, commands: Sequence[Command]) -> list[Any]:
        """Run what follows a batch whose replies are good: if it fails, return `UNAVAILABLE` for each command."""
        try:
            return await self._connection.pipeline(commands, background=True) if commands else []
        except RedisUnavailable:
            return [UNAVAILABLE] * len(commands)

    async def _follow_resets(self, values: list[Any], calls: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Put the id of the reset in place of each value that is a reset, and store that id.

        A reset that is not genuine is deleted, and the candidate stored. `calls` has the key, the candidate and the TTL
        of each value.
        """
        found = [number for number, value in enumerate(values) if isinstance(value, list)]
        if self._after_reset is None or not found:
            return
        commands: list[Command] = []
        for number in found:
            key, candidate, ttl = calls[number]
            (reset,) = values[number]
            session_id = self._after_reset(key, reset)
            if session_id is None:
                self._on_unreadable("session", "damaged")
                values[number] = UNAVAILABLE
                after = script_command("replace", _reset_key(key), (reset, "", 1))
            else:
                values[number] = candidate = self._seal(key, session_id)
                after = ("PEXPIRE", _reset_key(key), self._reset_ttl)
            commands += (script_command("session", key, (candidate, ttl)), after)
        with suppress(RedisUnavailable):  # the id of a reset is known all the same, and the next touch uploads it
            replies = await self._connection.pipeline(commands)
            for number, reply in zip(found, replies[::2], strict=True):
                if values[number] is UNAVAILABLE or isinstance(reply, bytes):
                    values[number] = reply

    async def _replaced(self, key: bytes, damaged: bytes, sealed: bytes, ttl: int) -> Reply:
        # Deleted and created, because the id of a reset counts more than the candidate.
        commands = [script_command("replace", key, (damaged, "", 1)), self._session(key, sealed, ttl)]
        try:
            values = (await self._connection.pipeline(commands))[1:]
            await self._follow_resets(values, [(key, sealed, ttl)])
            value = sealed if values[0] == _STORED else values[0]
            return self._open(key, value) if isinstance(value, bytes) else value
        except RedisUnavailable:
            return UNAVAILABLE  # the other replies of the batch are good
        except Unreadable as error:
            return error if error.reason == "unknown-key" else None

    async def _delete_long(self, key: bytes, value: bytes) -> None:
        """Delete a value that is too long, so that no instance reads it whole again."""
        if len(value) > _LONGEST:
            old = value if len(value) <= _LONGEST_COMPARED else b""
            with suppress(RedisUnavailable):  # the next touch does it
                await self._connection.run("replace", (key,), (old, "", 1))

    async def _values(self, keys: Sequence[bytes], sealed: Sequence[bytes | None]) -> list[Any]:
        if len(keys) > 1 and self._connection.takes_all_slots:
            # One command for all, as both sides take less time for one with many keys: a quarter of it here.
            resets = () if self._after_reset is None else map(_reset_key, keys)
            args = (self._ttl, self._deadline(keys[0]), *(value or b"" for value in sealed))
            values = await self._connection.run_on_all("sessions", [*keys, *resets], args)
            if values is not None:
                return values
        commands: list[Command] = [
            ("GETEX", key, "PX", self._ttl) if value is None else self._creation(key, value, self._deadline(key))
            for key, value in zip(keys, sealed, strict=True)
        ]
        only_read = [number for number, value in enumerate(sealed) if value is None and self._after_reset is not None]
        commands += [self._creation(keys[number], b"") for number in only_read]  # reads their resets, too
        found = await self._connection.pipeline(commands)
        for number, value in zip(only_read, found[len(keys) :], strict=True):
            if found[number] is None and isinstance(value, list):
                found[number] = value
        return found[: len(keys)]

    def _creation(self, key: bytes, sealed: bytes, deadline: int | str = "") -> Command:
        return self._session(key, sealed, self._ttl, "", deadline)

    def _session(self, key: bytes, sealed: bytes, *args: int | str) -> Command:
        more_keys = () if self._after_reset is None else (_reset_key(key),)
        return script_command("session", key, (sealed, *args), more_keys=more_keys)

    @property
    def _reset_ttl(self) -> int:
        return self._ttl + _RESET_LASTS

    def _deadline(self, key: bytes) -> int | str:
        deadline = self._connection.server_deadline(key)
        return "" if deadline is None else deadline

    def _read(self, key: bytes, value: Any, opened: list[tuple[bytes, bytes, str]]) -> Reply:
        if not isinstance(value, bytes):
            return UNAVAILABLE if value is UNAVAILABLE else None  # None: absent, or of another type
        found = self._open(key, value)
        opened.append((key, value, found))
        return found

    async def _reseal(self, found: Sequence[tuple[bytes, bytes, str]], *, background: bool = True) -> None:
        calls = [
            (key, (value, self._seal(key, session_id), _KEEP_TTL))
            for key, value, session_id in found
            if not self._sealer.is_current(value)
        ]
        if calls:
            with suppress(RedisUnavailable):  # the next touch does it
                await self._connection.run_for_each("replace", calls, background=background)

    def _seal(self, key: bytes, session_id: str) -> bytes:
        return self._sealer.seal(bytes.fromhex(session_id.replace("-", "")), key=key, version=0)

    def _open(self, key: bytes, value: bytes) -> str:
        try:
            if len(value) > _LONGEST:
                raise Unreadable("damaged")
            _version, body = self._sealer.open(value, key=key)
            if len(body) != 16:
                raise Unreadable("damaged")
        except Unreadable as error:
            self._on_unreadable("session", error.reason)
            raise
        return uuid_text(body)


def _reset_key(key: bytes) -> bytes:
    return key.removesuffix(b"session") + b"reset"


def uuid_text(raw: bytes | bytearray) -> str:
    """Return the text of a UUID's 16 bytes. `uuid.UUID` takes 4 µs for it, a tenth of a first sight."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
