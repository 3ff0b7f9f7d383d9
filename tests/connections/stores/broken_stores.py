"""A correct store in memory, and stores with one fault each, which the suite must notice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tokenmw.connections import ConnectionKey, StoredConnection

Row = tuple[ConnectionKey, StoredConnection]


class MemoryStore:
    """A correct store: all instances over one dictionary."""

    def __init__(self, rows: dict[tuple[str, str], Row]) -> None:
        self.rows = rows

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        row = self.rows.get(self.name(key))
        return row and row[1]

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        if self.version(key) != expected:
            return False
        self.rows[self.name(key)] = (key, StoredConnection(expected + 1, value))
        return True

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        if not expected or self.version(key) != expected:
            return False
        del self.rows[self.name(key)]
        return True

    async def scan(self, *, after: ConnectionKey | None, limit: int) -> Sequence[Row]:
        first = ("", "") if after is None else self.name(after)
        return [self.rows[name] for name in sorted(self.rows) if name > first][:limit]

    async def aclose(self) -> None:
        await asyncio.sleep(0)

    def name(self, key: ConnectionKey) -> tuple[str, str]:
        return key.subject, key.app

    def version(self, key: ConnectionKey) -> int:
        row = self.rows.get(self.name(key))
        return 0 if row is None else row[1].version


class LastWriteWins(MemoryStore):
    """It stores whatever version the caller has seen."""

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        return await super().save(key, value, expected=self.version(key))


class ChecksThenWrites(MemoryStore):
    """It reads the version, and writes in a second step."""

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        if self.version(key) != expected:
            return False
        await asyncio.sleep(0)
        return await super().save(key, value, expected=self.version(key))


class StaleReads(MemoryStore):
    """It keeps what it has read, as a cache or a replica does."""

    def __init__(self, rows: dict[tuple[str, str], Row]) -> None:
        super().__init__(rows)
        self.seen: dict[tuple[str, str], StoredConnection] = {}

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        found = await super().load(key)
        return None if found is None else self.seen.setdefault(self.name(key), found)


class IgnoresVersionOnDelete(MemoryStore):
    """It deletes whatever version there is."""

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        return await super().delete(key, expected=self.version(key))


class CreatesOverExisting(MemoryStore):
    """Its first save replaces a value, as an upsert does."""

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        if expected == 0:
            self.rows.pop(self.name(key), None)
        return await super().save(key, value, expected=expected)


class IgnoresLetterCase(MemoryStore):
    """Its collation takes two users for one."""

    def name(self, key: ConnectionKey) -> tuple[str, str]:
        return key.subject.casefold(), key.app


class CutsValues(MemoryStore):
    """Its column is too short."""

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        return await super().save(key, value[:4096], expected=expected)


class ForgetsPages(MemoryStore):
    """Its scan returns the first page each time a key was deleted."""

    async def scan(self, *, after: ConnectionKey | None, limit: int) -> Sequence[Row]:
        names = sorted(self.rows)
        first = 0 if after is None or self.name(after) not in names else names.index(self.name(after)) + 1
        return [self.rows[name] for name in names[first : first + limit]]


class LosesItsLock(MemoryStore):
    """It does not release its lock when a call is cancelled."""

    lock = False

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        if LosesItsLock.lock:
            return False
        LosesItsLock.lock = True
        await asyncio.sleep(0)
        done = await super().save(key, value, expected=expected)
        LosesItsLock.lock = False
        return done


class BelongsToOneLoop(MemoryStore):
    """It keeps the event loop in which it was used first."""

    loop: asyncio.AbstractEventLoop | None = None

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        self.loop = self.loop or asyncio.get_running_loop()
        await self.loop.run_in_executor(None, int)
        return await super().load(key)
