"""A model of Redis on a manual clock: the Lua scripts of tokens, in Python.

`test_store_contract` runs the same tests with both, so that what other tests show with the model holds for Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.retries import Retry
from tokenmw.redis.token_store import (
    Busy,
    ClockMismatch,
    FailureNoted,
    Found,
    Leased,
    Stored,
    StoredVersions,
    TokenKeys,
    TokenRecord,
    Tombstoned,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.testing import ManualClock

__all__ = ["MemoryRedis", "MemoryStore", "StoredValue"]


@dataclass(frozen=True)
class StoredValue:
    """A value of any kind, with the monotonic time at which it expires."""

    expires: float
    version: int = 0
    record: TokenRecord | None = None
    owner: str = ""
    note: bytes = b""


class MemoryRedis:
    """The server that several stores share.

    Attributes:
        up: Whether it answers.
        wall: The seconds by which its wall clock is ahead.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.up = True
        self.wall = 0.0
        self.data: dict[tuple[TokenKeys, str], StoredValue] = {}

    def get(self, keys: TokenKeys, kind: str) -> StoredValue | None:
        """Return a value that has not expired."""
        value = self.data.get((keys, kind))
        return None if value is None or value.expires <= self.clock.monotonic() else value

    def left(self, value: StoredValue) -> float:
        """Return the seconds until a value expires."""
        return value.expires - self.clock.monotonic()

    def expires_in(self, seconds: float) -> float:
        """Return when a value that is set now expires; at least a millisecond later, as with PX."""
        return self.clock.monotonic() + max(0.001, seconds)

    def delete(self, keys: TokenKeys, kind: str) -> None:
        """Delete a value."""
        self.data.pop((keys, kind), None)

    def now(self) -> int:
        """Return the server's time in microseconds."""
        return int((self.clock.time() + self.wall) * 1_000_000)

    def flush(self) -> None:
        """Lose everything."""
        self.data.clear()


class MemoryStore:
    """One instance's connection to a `MemoryRedis`; while it is `cut`, the server is out of reach."""

    def __init__(self, server: MemoryRedis) -> None:
        self.server = server
        self.cut = False

    def _check_reachable(self) -> None:
        if self.cut or not self.server.up:
            raise RedisUnavailable("connection")

    @property
    def _latest(self) -> int:
        return self.server.now() + 86_400_000_000

    @property
    def _mismatch(self) -> ClockMismatch:
        return ClockMismatch(self.server.now() / 1_000_000)

    def _token(self, keys: TokenKeys) -> Found | None:
        value = self.server.get(keys, "token")
        if value is None or value.record is None or value.version > self._latest:
            return None
        return Found(value.record, value.version, self.server.left(value))

    def _invalid(self, keys: TokenKeys) -> int:
        value = self.server.get(keys, "tomb")
        return 0 if value is None or value.version > self._latest else value.version

    async def read(self, keys: TokenKeys, /) -> tuple[Found | None, int]:
        self._check_reachable()
        return self._token(keys), self._invalid(keys)

    async def holds(self, tokens: Sequence[tuple[TokenKeys, int]], /) -> list[bool]:
        self._check_reachable()
        found = [self._token(keys) for keys, _ in tokens]
        return [one is not None and one.version == version for one, (_, version) in zip(found, tokens, strict=True)]

    async def versions(self, keys: Sequence[TokenKeys], /) -> list[StoredVersions | None]:
        self._check_reachable()
        found = [(self._token(one), self._invalid(one)) for one in keys]
        return [
            StoredVersions(0 if token is None else token.version, invalid, current_seal=True)
            for token, invalid in found
        ]

    async def acquire(
        self, keys: TokenKeys, owner: str, /, *, known: int, seconds: float, through_note: bool = False
    ) -> Found | Leased | Busy | FailureNoted | ClockMismatch:
        self._check_reachable()
        if known > self._latest:
            return self._mismatch
        found, invalid = self._token(keys), self._invalid(keys)
        if found is not None and found.version > max(known, invalid):
            return found
        lease = self.server.get(keys, "lease")
        if lease is not None:
            return Leased(lease.version) if lease.owner == owner else Busy(self.server.left(lease))
        note = self.server.get(keys, "note")
        if note is not None and not through_note:
            return FailureNoted(note.note, self.server.left(note))
        version = max(self.server.now(), 1 + max(0 if found is None else found.version, invalid, known))
        self.server.data[keys, "lease"] = StoredValue(self.server.expires_in(seconds), version=version, owner=owner)
        return Leased(version)

    async def commit(
        self, keys: TokenKeys, owner: str, record: TokenRecord, /, *, version: int, left: float, announce: bool = True
    ) -> Stored | Found | Busy | Tombstoned | ClockMismatch:
        self._check_reachable()
        lease = self.server.get(keys, "lease")
        mine = lease is not None and (lease.owner, lease.version) == (owner, version)
        if mine:
            self.server.delete(keys, "lease")
        requested = self.server.now() - int((record.lifetime - left + 60) * 1_000_000)
        if not requested <= version <= self._latest:
            return self._mismatch
        found = self._token(keys)
        if found is not None and (found.record, found.version) == (record, version):
            return Stored()
        if self._invalid(keys) >= version:
            return Tombstoned(version)
        if found is not None and found.version >= version:
            return found
        if lease is not None and not mine:
            return Busy(self.server.left(lease))
        self.server.data[keys, "token"] = StoredValue(self.server.expires_in(left), version=version, record=record)
        self.server.delete(keys, "note")
        return Stored()

    async def release(self, keys: TokenKeys, owner: str, /, *, version: int, note: bytes, seconds: float) -> None:
        self._check_reachable()
        lease = self.server.get(keys, "lease")
        if lease is None or (lease.owner, lease.version) != (owner, version):
            return
        self.server.delete(keys, "lease")
        if note:
            self.server.data[keys, "note"] = StoredValue(self.server.expires_in(seconds), note=note)

    async def server_time(self, keys: TokenKeys, /) -> int:
        self._check_reachable()
        return self.server.now()

    async def write_tombstone(
        self, keys: TokenKeys, /, *, version: int | None, known: int, left: float
    ) -> Found | Tombstoned | ClockMismatch:
        self._check_reachable()
        if max(known, version or 0) > self._latest:
            return self._mismatch
        found = self._token(keys)
        if version is None:
            lease = self.server.get(keys, "lease")
            seen = (0 if value is None else value.version for value in (found, lease))
            version = max(known, *seen)
            left = max(left, 0.0 if found is None else found.left)
            self.server.delete(keys, "note")
        if found is not None and found.version > version:
            return found
        self.server.delete(keys, "token")
        tomb = self.server.get(keys, "tomb")
        if tomb is not None and tomb.version >= version:
            version, left = tomb.version, max(left, self.server.left(tomb))
        self.server.data[keys, "tomb"] = StoredValue(self.server.expires_in(left), version=version)
        return Tombstoned(version)

    async def noted(self, keys: TokenKeys, /) -> tuple[bool, Retry | None]:
        self._check_reachable()
        retry = self.server.get(keys, "retry")
        asked = None if retry is None else Retry(retry.version, retry.owner, 60.0 - self.server.left(retry))
        return self.server.get(keys, "note") is not None, asked

    async def write_retry(self, keys: TokenKeys, by: str, /) -> int:
        self._check_reachable()
        version = self.server.now()
        self.server.delete(keys, "note")
        self.server.data[keys, "retry"] = StoredValue(self.server.expires_in(60.0), version=version, owner=by)
        return version
