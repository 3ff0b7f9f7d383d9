"""A store of connections in an SQLite file, by the standard library alone, for tests with several processes."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tokenmw.connections.store import ConnectionKey, StoredConnection, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["FileStore"]

_TABLE = "CREATE TABLE IF NOT EXISTS connections (app, subject, digest, version, value, PRIMARY KEY (app, subject))"


class FileStore:
    """A `ConnectionStore` in a file.

    Attributes:
        hook: Called with `load`, `claim` or `commit`, and `before` or `after`: the first write is the claim, the others
            commit.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._writes = 0
        self.hook: Callable[[str, str], Awaitable[None]] | None = None
        self._execute(_TABLE)

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        """Return the value of a key."""
        rows = await self._run("load", "SELECT version, value FROM connections WHERE app=? AND subject=?", key[:2])
        return StoredConnection(*rows[0]) if rows else None

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        """Store a value if the version is as expected."""
        self._writes += 1
        name = "claim" if self._writes == 1 else "commit"
        if not expected:
            insert = "INSERT INTO connections VALUES (?, ?, ?, 1, ?) ON CONFLICT DO NOTHING RETURNING 1"
            return bool(await self._run(name, insert, (*key, value)))
        update = "UPDATE connections SET version=version+1, value=? WHERE app=? AND subject=? AND version=? RETURNING 1"
        return bool(await self._run(name, update, (value, *key[:2], expected)))

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        """Delete a value if the version is as expected."""
        delete = "DELETE FROM connections WHERE app=? AND subject=? AND version=? RETURNING 1"
        return bool(await self._run("delete", delete, (*key[:2], expected)))

    async def scan(
        self, *, after: ConnectionKey | None, limit: int
    ) -> Sequence[tuple[ConnectionKey, StoredConnection]]:
        """Return the values after a key."""
        scan = "SELECT * FROM connections WHERE (app, subject) > (?, ?) ORDER BY app, subject LIMIT ?"
        rows = await self._run("scan", scan, (*(after[:2] if after else ("", "")), limit))
        return [(ConnectionKey(*row[:3]), StoredConnection(*row[3:])) for row in rows]

    async def aclose(self) -> None:
        """Do nothing: each call has a connection of its own."""

    async def _run(self, name: str, statement: str, values: Sequence[Any]) -> list[Any]:
        await self._at(name, "before")
        try:
            rows = await asyncio.to_thread(self._execute, statement, values)
        except sqlite3.Error as error:
            raise StoreUnavailable(type(error).__name__) from None
        await self._at(name, "after")
        return rows

    async def _at(self, name: str, when: str) -> None:
        if self.hook is not None:
            await self.hook(name, when)

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with closing(sqlite3.connect(self._path, timeout=5.0)) as database, database:
            return database.execute(statement, values).fetchall()
