"""Tokens in Redis: typed operations over the Lua scripts, whose comments say what each of them guarantees."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import TokenUnavailable
from tokenmw.redaction import Unpicklable, not_encoded
from tokenmw.redis.connection import UNAVAILABLE
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.retries import commands_to_read, commands_to_write, retry_of
from tokenmw.redis.scripts import script_command
from tokenmw.redis.sealing import Unreadable
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tokenmw.redis.connection import Command, RedisConnection
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.retries import Retry
    from tokenmw.redis.scripts import ScriptName
    from tokenmw.redis.sealing import Sealer

__all__ = [
    "Busy",
    "ClockMismatch",
    "FailureNoted",
    "Found",
    "Leased",
    "RedisTokenStore",
    "Stored",
    "StoredVersions",
    "TokenKeys",
    "TokenRecord",
    "Tombstoned",
]

# A stored token is refused when this many seconds have passed since its lifetime ended, by the server's clock. They
# cover the time between lease and request; after them, the value was written again, or its TTL was extended.
_GRACE: Final = 60.0
# Times that an operation is repeated because it has found and deleted a damaged value. More of them are no accident:
# something writes as fast as this process deletes.
_TRIES: Final = 4
_HEADER_END: Final = 12  # the last byte of a value's header


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The four Redis keys of one credential's token, with one hash tag."""

    token: bytes
    lease: bytes
    note: bytes
    tombstone: bytes

    @classmethod
    def of(cls, names: KeyNames, digest: str) -> TokenKeys:
        """Return the keys of a credential's digest."""
        key = names.key
        return cls(key(digest, "token"), key(digest, "lease"), key(digest, "note"), key(digest, "tomb"))

    @property
    def all(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The keys in the order in which the scripts take them."""
        return self.token, self.lease, self.note, self.tombstone


@not_encoded
@dataclass(frozen=True, slots=True, repr=False)
class TokenRecord(Unpicklable):
    """What is stored of a token: durations but no times, so that no machine depends on the clock of another.

    Attributes:
        value: The token.
        token_type: Its scheme.
        lifetime: Seconds for which it was granted.
        no_refresh_until: While the token has more seconds left than this, the provider is not asked again; or None.
        extra: Other fields of the provider's answer.
    """

    value: str
    token_type: str
    lifetime: float
    no_refresh_until: float | None
    extra: Mapping[str, Any]

    def encode(self) -> bytes:
        """Return the record as JSON."""
        row = [self.value, self.token_type, self.lifetime, self.no_refresh_until, dict(self.extra)]
        return json.dumps(row, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, body: bytes) -> TokenRecord:
        """Read what `encode` returned.

        Raises:
            Unreadable: The body is not a record, or no request could use it.
        """
        try:
            value, token_type, lifetime, no_refresh_until, extra = json.loads(body)
            limit = None if no_refresh_until is None else float(no_refresh_until)
            # Checked as a provider's answer is: this token goes into headers, too.
            grant = Grant(value, expires_in=lifetime, token_type=token_type, extra=extra)
        except (ValueError, TypeError, OverflowError, RecursionError, TokenUnavailable):
            raise Unreadable("damaged") from None
        if not isinstance(extra, dict) or (limit is not None and not math.isfinite(limit)):
            raise Unreadable("damaged")
        return cls(grant.value, grant.token_type, grant.expires_in, limit, grant.extra)


@not_encoded
@dataclass(frozen=True, slots=True)
class Found(Unpicklable):
    """There is a token: its record, its version, and the seconds until it expires."""

    record: TokenRecord
    version: int
    left: float


@dataclass(frozen=True, slots=True)
class Leased:
    """This process may fetch a token, and commit it with this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Another process holds the lease, which expires after `left` seconds at the latest."""

    left: float


@dataclass(frozen=True, slots=True)
class FailureNoted:
    """Another process got no token from the provider: its note, and the seconds until the note expires."""

    note: bytes
    left: float


@dataclass(frozen=True, slots=True)
class Stored:
    """The token was stored, or this same token had been stored already."""


@dataclass(frozen=True, slots=True)
class Tombstoned:
    """Tokens up to this version are invalid and must not be used; `at` is the server's time, in seconds since 1970."""

    version: int
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class StoredVersions:
    """What Redis has of a token, without its value: the versions of token and tombstone, or 0 if there is none.

    Attributes:
        current_seal: Whether the value is sealed as this instance seals it.
    """

    token: int
    tombstone: int
    current_seal: bool


@dataclass(frozen=True, slots=True)
class ClockMismatch:
    """A version of the caller's does not agree with the server's clock, in seconds since 1970. Nothing was stored."""

    server_time: float


class RedisTokenStore(Unpicklable):
    """Runs the token scripts. Each operation is one round trip and may raise `RedisUnavailable`.

    A damaged value is deleted, unless it has changed in the meantime, and counts as absent. So is a token whose
    lifetime is over: without the secret nobody can make a token, but anyone can write an old one again, or extend its
    TTL. A value that is sealed with an unknown secret raises `Unreadable` and is left alone: instances that have the
    secret use it.

    Args:
        connection: The connection.
        sealer: Seals and opens values.
        on_unreadable: Is called with "token" and the reason for each value that does not open.
        hints: The channel on which stored tokens and tombstones are announced; b"" for none.
        background: Whether no request waits for its operations.
    """

    __slots__ = ("_background", "_connection", "_hints", "_on_unreadable", "_sealer")

    def __init__(
        self,
        connection: RedisConnection,
        *,
        sealer: Sealer,
        on_unreadable: Callable[[str, str], None],
        hints: bytes = b"",
        background: bool = False,
    ) -> None:
        self._background = background
        self._connection = connection
        self._hints = hints
        self._sealer = sealer
        self._on_unreadable = on_unreadable

    async def read(self, keys: TokenKeys) -> tuple[Found | None, int]:
        """Return the token, if there is one, and the highest version that is invalid, or 0.

        A token that is sealed with a secret that is being rotated out is sealed again with the first one; `versions`
        finds such tokens among those in use.
        """
        value, left, tombstone, now = await self._run("read", keys.all, ())
        found = await self._found(keys, value, left, now) if value else None
        if found is not None and not self._sealer.is_current(value):
            sealed = self._sealer.seal(found.record.encode(), key=keys.token, version=found.version)
            with suppress(RedisUnavailable):  # the next read does it
                await self._run("replace", (keys.token,), (value, sealed, ""))
        return found, int(tombstone)

    async def holds(self, tokens: Sequence[tuple[TokenKeys, int]]) -> list[bool]:
        """Return for each token whether Redis has this version, sealed as this instance seals it, in one batch.

        A tombstone needs no check: writing one deletes the token, and below it none is stored.
        """
        # Not by a script, which takes three times the time of this command: it is what a large fleet sends most.
        commands: list[Command] = [("GETRANGE", keys.token, 0, _HEADER_END) for keys, _ in tokens]
        headers = await self._connection.pipeline(commands, background=self._background, optional=True)
        held = [header == self._sealer.header(version) for header, (_, version) in zip(headers, tokens, strict=True)]
        refused = [number for number, header in enumerate(headers) if header is None]
        found = await self.versions([tokens[number][0] for number in refused])
        for number, stored in zip(refused, found, strict=True):
            version = tokens[number][1]
            held[number] = (
                stored is not None and stored.token == version and stored.tombstone < version and stored.current_seal
            )
        return held

    async def versions(self, keys: Sequence[TokenKeys]) -> list[StoredVersions | None]:
        """Return the versions of many tokens, in one batch and without their values; None for one that has no reply."""
        commands = [script_command("compare", one.token, (), more_keys=(one.tombstone,)) for one in keys]
        replies = await self._connection.pipeline(commands, background=self._background) if commands else []
        return [self._versions(reply) if isinstance(reply, list) else None for reply in replies]

    async def acquire(
        self, keys: TokenKeys, owner: str, *, known: int, seconds: float, through_note: bool = False
    ) -> Found | Leased | Busy | FailureNoted | ClockMismatch:
        """Return a token above version `known`; without one, take the lease for `seconds`, or return what prevents it.

        With `through_note`, a failure note does not prevent it. The call is idempotent for its owner: a repeated one
        returns the same lease.
        """
        for _ in range(_TRIES):
            args = (owner, _milliseconds(seconds), known, int(through_note))
            reply = await self._run("acquire", keys.all, args)
            kind, value, left, now = reply
            match kind:
                case b"lease":
                    return Leased(int(value))
                case b"held":
                    return Busy(left / 1000)
                case b"clock":
                    return ClockMismatch(now / 1_000_000)
                case b"note":
                    note = await self._open_note(keys, value)
                    if note is not None:
                        return FailureNoted(note, left / 1000)
                    continue
            found = await self._found(keys, value, left, now)
            if found is not None:
                return found
            # It was damaged and has been deleted: try again.
        raise RedisUnavailable("damaged")

    async def commit(
        self, keys: TokenKeys, owner: str, record: TokenRecord, *, version: int, left: float, announce: bool = True
    ) -> Stored | Found | Busy | Tombstoned | ClockMismatch:
        """Store a token that has `left` seconds: under this owner's lease, or without any lease if it is newer.

        It is idempotent for the same token and version. Other processes get a hint, unless it is no news for them.
        """
        value = self._sealer.seal(record.encode(), key=keys.token, version=version)
        hints = self._hints if announce else b""
        args = (owner, version, value, _milliseconds(left), _milliseconds(record.lifetime - left), hints)
        for _ in range(_TRIES):
            kind, other, other_left, now = await self._run("commit", keys.all, args)
            match kind:
                case b"stored":
                    return Stored()
                case b"clock":
                    return ClockMismatch(now / 1_000_000)
                case b"tombstone":
                    return Tombstoned(version)
                case b"held":
                    return Busy(other_left / 1000)
            found = await self._found(keys, other, other_left, now)
            if found is not None:
                # Each sealing of a token gives other bytes, so the script cannot see that this token is stored already.
                same = found.version == version and found.record.value == record.value
                return Stored() if same else found
        raise RedisUnavailable("damaged")

    async def release(self, keys: TokenKeys, owner: str, *, version: int, note: bytes, seconds: float) -> None:
        """Release the lease. A note, if not empty, tells other processes for `seconds` why there is no token."""
        sealed = self._sealer.seal(note, key=keys.note, version=version) if note else b""
        await self._run("release", keys.all, (owner, version, sealed, _milliseconds(seconds)))

    async def server_time(self, keys: TokenKeys) -> int:
        """Return the time of the server that has these keys, in microseconds since 1970."""
        now: int
        *_, now = await self._run("read", keys.all, ())
        return now

    async def write_tombstone(
        self, keys: TokenKeys, *, version: int | None, known: int, left: float
    ) -> Found | Tombstoned | ClockMismatch:
        """Declare tokens up to a version invalid, for `left` seconds at least. Return a newer token, if there is one.

        With None as the version, any token is invalid that was stored or asked for so far. Then `known` must not be
        below the server's time, at which another process may have asked for a token without Redis.
        """
        args = ("" if version is None else version, known, _milliseconds(left), self._hints)
        for _ in range(_TRIES):
            kind, value, value_left, tombstone, now = await self._run("tombstone", keys.all, args)
            if kind == b"tombstone":
                return Tombstoned(int(tombstone), now / 1_000_000)
            if kind == b"clock":
                return ClockMismatch(now / 1_000_000)
            found = await self._found(keys, value, value_left, now)
            if found is not None:
                return found
        raise RedisUnavailable("damaged")

    async def noted(self, keys: TokenKeys) -> tuple[bool, Retry | None]:
        """Return whether Redis has a failure note, judging by its TTL, and the last request of an operator to retry."""
        left, *retry = await self._connection.pipeline([("PTTL", keys.note), *commands_to_read(keys.token)])
        return isinstance(left, int) and left > 0, retry_of(self._sealer, keys.token, *retry)

    async def write_retry(self, keys: TokenKeys, by: str) -> int:
        """Store and announce an operator's request to retry, and delete the failure note. Return its version."""
        version, hint = await self.server_time(keys), keys.token[max(0, len(self._hints) - 5) :]
        commands = commands_to_write(self._sealer, keys.token, keys.note, version=version, by=by)
        if any(reply is UNAVAILABLE for reply in await self._connection.pipeline(commands)):
            raise RedisUnavailable("response")
        if self._hints:
            with suppress(RedisUnavailable):  # without it, the next request of each instance reads it
                publish = ("PUBLISH", self._hints, hint)
                await self._connection.execute(lambda client: client.execute_command(*publish), key=keys.token)
        return version

    async def _run(self, script: ScriptName, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        return await self._connection.run(script, keys, args, background=self._background)

    def _versions(self, reply: Any) -> StoredVersions:
        header: bytes = reply[0]
        version = int.from_bytes(header[1:9])
        return StoredVersions(version, int(reply[1]), not header or self._sealer.is_current(header))

    async def _found(self, keys: TokenKeys, value: bytes, left: int, now: int) -> Found | None:
        try:
            version, body = self._sealer.open(value, key=keys.token)
            record = TokenRecord.decode(body)
            # The version is the time of the request by the server's clock. Nobody can change it without the secret.
            until_over = (version - now) / 1_000_000 + record.lifetime + _GRACE
            if until_over <= 0:
                raise Unreadable("expired")
        except Unreadable as error:
            self._on_unreadable("token", error.reason)
            if error.reason == "unknown-key":
                raise
            await self._run("replace", (keys.token,), (value, "", 1))
            return None
        # A TTL that was extended in Redis does not extend the lifetime of the token.
        return Found(record, version, min(left / 1000, record.lifetime, until_over))

    async def _open_note(self, keys: TokenKeys, value: bytes) -> bytes | None:
        try:
            return self._sealer.open(value, key=keys.note)[1]
        except Unreadable as error:
            if error.reason == "unknown-key":
                return b""  # that there is no token is known, the cause is not
            self._on_unreadable("token", error.reason)
            await self._run("replace", (keys.note,), (value, "", 1))
            return None


def _milliseconds(seconds: float) -> int:
    # PX must be positive. A reader computes the windows of a token itself and does not use one that is about to expire.
    return max(1, int(seconds * 1000))
