"""The shared layer on a clock that a test moves: what the Lua scripts do, once more, in Python.

`test_store_contract` holds both to the same tests, so that what is shown with this one holds for Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.token_store import Busy, FailureNoted, Found, Leased, Stored, TokenKeys, TokenRecord, Tombstoned

if TYPE_CHECKING:
    from tokenmw.testing import ManualClock

__all__ = ["Held", "MemoryRedis", "MemoryStore"]


@dataclass(frozen=True)
class Held:
    """A value of any kind, with the time at which it lapses."""

    until: float
    version: int = 0
    record: TokenRecord | None = None
    owner: str = ""
    note: bytes = b""


class MemoryRedis:
    """What several stores share: a server with its own clock.

    Attributes:
        up: Whether it answers.
        wall: Seconds added to the clock's wall time: the server's idea of now.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.up = True
        self.wall = 0.0
        self.data: dict[tuple[TokenKeys, str], Held] = {}

    def get(self, keys: TokenKeys, kind: str) -> Held | None:
        """Return what is held, if it has not lapsed."""
        held = self.data.get((keys, kind))
        return None if held is None or held.until <= self.clock.monotonic() else held

    def left(self, held: Held) -> float:
        """Return the seconds until something lapses."""
        return held.until - self.clock.monotonic()

    def until(self, seconds: float) -> float:
        """Return when something lapses that is put now; like PX, no less than a millisecond."""
        return self.clock.monotonic() + max(0.001, seconds)

    def delete(self, keys: TokenKeys, kind: str) -> None:
        """Take a value away."""
        self.data.pop((keys, kind), None)

    def now(self) -> int:
        """Return the server's time in microseconds."""
        return int((self.clock.time() + self.wall) * 1_000_000)

    def flush(self) -> None:
        """Lose everything."""
        self.data.clear()


class MemoryStore:
    """One instance's way to a `MemoryRedis`."""

    def __init__(self, server: MemoryRedis) -> None:
        self.server = server
        self.cut = False

    def _reach(self) -> None:
        if self.cut or not self.server.up:
            raise RedisUnavailable("connection")

    def _token(self, keys: TokenKeys) -> Found | None:
        held = self.server.get(keys, "token")
        if held is None or held.record is None:
            return None
        return Found(held.record, held.version, self.server.left(held))

    def _dead(self, keys: TokenKeys) -> int:
        held = self.server.get(keys, "tomb")
        return 0 if held is None else held.version

    async def read(self, keys: TokenKeys, /) -> tuple[Found | None, int]:
        self._reach()
        return self._token(keys), self._dead(keys)

    async def acquire(
        self, keys: TokenKeys, owner: str, /, *, known: int, seconds: float
    ) -> Found | Leased | Busy | FailureNoted:
        self._reach()
        found, dead = self._token(keys), self._dead(keys)
        if found is not None and found.version > max(known, dead):
            return found
        lease = self.server.get(keys, "lease")
        if lease is not None:
            return Leased(lease.version) if lease.owner == owner else Busy(self.server.left(lease))
        note = self.server.get(keys, "note")
        if note is not None:
            return FailureNoted(note.note, self.server.left(note))
        version = max(self.server.now(), 1 + max(0 if found is None else found.version, dead, known))
        self.server.data[keys, "lease"] = Held(self.server.until(seconds), version=version, owner=owner)
        return Leased(version)

    async def commit(
        self, keys: TokenKeys, owner: str, record: TokenRecord, /, *, version: int, left: float
    ) -> Stored | Found | Busy | Tombstoned:
        self._reach()
        lease = self.server.get(keys, "lease")
        mine = lease is not None and (lease.owner, lease.version) == (owner, version)
        if mine:
            self.server.delete(keys, "lease")
        found = self._token(keys)
        if found is not None and (found.record, found.version) == (record, version):
            return Stored()
        if self._dead(keys) >= version:
            return Tombstoned(version)
        if found is not None and found.version >= version:
            return found
        if lease is not None and not mine:
            return Busy(self.server.left(lease))
        self.server.data[keys, "token"] = Held(self.server.until(left), version=version, record=record)
        self.server.delete(keys, "note")
        return Stored()

    async def release(self, keys: TokenKeys, owner: str, /, *, version: int, note: bytes, seconds: float) -> None:
        self._reach()
        lease = self.server.get(keys, "lease")
        if lease is None or (lease.owner, lease.version) != (owner, version):
            return
        self.server.delete(keys, "lease")
        if note:
            self.server.data[keys, "note"] = Held(self.server.until(seconds), note=note)

    async def write_tombstone(
        self, keys: TokenKeys, /, *, version: int | None, known: int, left: float
    ) -> Found | Tombstoned:
        self._reach()
        found = self._token(keys)
        if version is None:
            lease = self.server.get(keys, "lease")
            seen = (0 if seat is None else seat.version for seat in (found, lease))
            version = max(self.server.now(), known, *seen)
            left = max(left, 0.0 if found is None else found.left)
            self.server.delete(keys, "note")
        if found is not None and found.version > version:
            return found
        self.server.delete(keys, "token")
        tomb = self.server.get(keys, "tomb")
        if tomb is not None and tomb.version >= version:
            version, left = tomb.version, max(left, self.server.left(tomb))
        self.server.data[keys, "tomb"] = Held(self.server.until(left), version=version)
        return Tombstoned(version)
