"""Tokens in Redis: typed operations over the scripts. What the scripts promise stands in their own comments."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenmw.errors import TokenUnavailable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.sealing import Sealer

__all__ = ["Busy", "Found", "Leased", "Noted", "RedisTokenStore", "Stored", "TokenKeys", "TokenRecord", "Tombstoned"]


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The four Redis keys of one credential's token; one hash tag."""

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


@dataclass(frozen=True, slots=True, repr=False)
class TokenRecord:
    """What is stored of a token. It says durations only, so that no machine's clock matters to another.

    Attributes:
        value: The token.
        token_type: Its scheme.
        life: Seconds it had when it was granted.
        no_refresh_until: The provider need not be asked again before so many seconds are left; None: no such rule.
        extra: More of the provider's answer.
    """

    value: str
    token_type: str
    life: float
    no_refresh_until: float | None
    extra: Mapping[str, Any]

    def encode(self) -> bytes:
        """Return it as JSON."""
        row = [self.value, self.token_type, self.life, self.no_refresh_until, dict(self.extra)]
        return json.dumps(row, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, body: bytes) -> TokenRecord:
        """Read what `encode` wrote.

        Raises:
            Unreadable: It is something else.
        """
        try:
            value, token_type, life, no_refresh_until, extra = json.loads(body)
            quiet = None if no_refresh_until is None else float(no_refresh_until)
            # Whoever writes to Redis is trusted no more than a provider: its token goes into headers, too.
            grant = Grant(value, expires_in=life, token_type=token_type, extra=extra)
        except (ValueError, TypeError, OverflowError, RecursionError, TokenUnavailable):
            raise Unreadable("damaged") from None
        if not isinstance(extra, dict) or (quiet is not None and not math.isfinite(quiet)):
            raise Unreadable("damaged")
        return cls(grant.value, grant.token_type, grant.expires_in, quiet, grant.extra)


@dataclass(frozen=True, slots=True)
class Found:
    """A token is there: its record, version, and the seconds it has left."""

    record: TokenRecord
    version: int
    left: float


@dataclass(frozen=True, slots=True)
class Leased:
    """The right to fetch is ours; the token to come has this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Another process holds the lease, for so many seconds at most."""

    left: float


@dataclass(frozen=True, slots=True)
class Noted:
    """Another process was refused by the provider; the note, and the seconds until it lapses."""

    note: bytes
    left: float


@dataclass(frozen=True, slots=True)
class Stored:
    """The token was stored, or this very one stood there already."""


@dataclass(frozen=True, slots=True)
class Tombstoned:
    """The version was declared invalid: nobody may use that token."""

    version: int


class RedisTokenStore:
    """Runs the token scripts on Redis. Each operation is one round trip, and may raise `RedisUnavailable`.

    A value that is damaged is deleted if it is still the same one, and counts as absent. One that is sealed by an
    unknown secret raises `Unreadable` and is left alone: instances with that secret use it.
    """

    __slots__ = ("_connection", "_seals", "on_unreadable")

    def __init__(self, connection: RedisConnection, *, seals: Sealer) -> None:
        self._connection = connection
        self._seals = seals
        self.on_unreadable: Callable[[str, str], None] = lambda _kind, _why: None

    async def read(self, keys: TokenKeys) -> tuple[Found | None, int]:
        """Return the token that is there, if any, and the highest version declared invalid.

        One that is sealed by a secret on its way out is sealed anew: tokens in use are read every so often.
        """
        value, left, dead = await self._connection.run("read", keys.all, ())
        found = await self._found(keys, value, left) if value else None
        if found is not None and not self._seals.current(value):
            sealed = self._seals.seal(found.record.encode(), key=keys.token, version=found.version)
            with suppress(RedisUnavailable):  # the next look does it
                await self._connection.run("replace", (keys.token,), (value, sealed, ""))
        return found, int(dead)

    async def acquire(
        self, keys: TokenKeys, owner: str, *, known: int, seconds: float
    ) -> Found | Leased | Busy | Noted:
        """Return a token above version `known`, else take the lease for so many seconds, else say who is in the way."""
        while True:
            reply = await self._connection.run("acquire", keys.all, (owner, _milliseconds(seconds), known))
            kind, value, left = reply
            match kind:
                case b"lease":
                    return Leased(int(value))
                case b"held":
                    return Busy(left / 1000)
                case b"note":
                    note = await self._open_note(keys, value)
                    if note is not None:
                        return Noted(note, left / 1000)
                    continue
            found = await self._found(keys, value, left)
            if found is not None:
                return found
            # It was damaged and is deleted now; look again.

    async def commit(
        self, keys: TokenKeys, owner: str, record: TokenRecord, *, version: int, left: float
    ) -> Stored | Found | Busy | Tombstoned:
        """Store a token: under our lease, or without any lease if it is newer than what is there."""
        value = self._seals.seal(record.encode(), key=keys.token, version=version)
        args = (owner, version, value, _milliseconds(left))
        while True:
            kind, other, other_left = await self._connection.run("commit", keys.all, args)
            match kind:
                case b"stored":
                    return Stored()
                case b"dead":
                    return Tombstoned(version)
                case b"held":
                    return Busy(other_left / 1000)
            found = await self._found(keys, other, other_left)
            if found is not None:
                # Sealed twice, one token is two values, so only here it is seen that this very one is there.
                mine = found.version == version and found.record.value == record.value
                return Stored() if mine else found

    async def release(self, keys: TokenKeys, owner: str, *, version: int, note: bytes, seconds: float) -> None:
        """Give the lease back; a note, if not empty, tells the others for so many seconds why there is no token."""
        sealed = self._seals.seal(note, key=keys.note, version=version) if note else b""
        await self._connection.run("release", keys.all, (owner, version, sealed, _milliseconds(seconds)))

    async def bury(self, keys: TokenKeys, *, version: int | None, known: int, left: float) -> Found | Tombstoned:
        """Declare a version and all before it invalid; None: whatever is there. Return a newer token, if any."""
        args = ("" if version is None else version, known, _milliseconds(left))
        while True:
            kind, value, value_left, dead = await self._connection.run("bury", keys.all, args)
            if kind == b"buried":
                return Tombstoned(int(dead))
            found = await self._found(keys, value, value_left)
            if found is not None:
                return found

    async def _found(self, keys: TokenKeys, value: bytes, left: int) -> Found | None:
        try:
            version, body = self._seals.open(value, key=keys.token)
            record = TokenRecord.decode(body)
        except Unreadable as error:
            self.on_unreadable("token", error.why)
            if error.why == "unknown-key":
                raise
            await self._connection.run("replace", (keys.token,), (value, "", 1))
            return None
        # A time to live that somebody has made longer makes no token live longer.
        return Found(record, version, min(left / 1000, record.life))

    async def _open_note(self, keys: TokenKeys, value: bytes) -> bytes | None:
        try:
            return self._seals.open(value, key=keys.note)[1]
        except Unreadable as error:
            if error.why == "unknown-key":
                return b""  # it still says that there is no token; why, is told as "unknown"
            self.on_unreadable("token", error.why)
            await self._connection.run("replace", (keys.note,), (value, "", 1))
            return None


def _milliseconds(seconds: float) -> int:
    # PX takes no zero; the reader computes the token's windows anew and does not use one that is about to end.
    return max(1, int(seconds * 1000))
