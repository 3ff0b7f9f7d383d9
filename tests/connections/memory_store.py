"""A store of connections in memory, with faults on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from tokenmw.connections.store import ConnectionKey, StoredConnection, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["MemoryStore"]


class MemoryStore:
    """A `ConnectionStore` for tests.

    Attributes:
        rows: What it has.
        calls: The number of calls by method.
        readonly: Whether writes fail.
        gone: Whether everything fails.
        before, after: Called with the method's name before and after it does its work; they may wait or raise.
    """

    def __init__(self) -> None:
        self.rows: dict[ConnectionKey, StoredConnection] = {}
        self.calls: Counter[str] = Counter()
        self.readonly = False
        self.gone = False
        self.before: Callable[[str], Awaitable[None]] = _nothing
        self.after: Callable[[str], Awaitable[None]] = _nothing

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        """Return the value of a key."""
        await self._begin("load")
        found = self.rows.get(key)
        await self.after("load")
        return found

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        """Store a value if the version is as expected."""
        await self._begin("save")
        present = self.rows.get(key)
        saved = (0 if present is None else present.version) == expected
        if saved:
            self.rows[key] = StoredConnection(expected + 1, value)
        await self.after("save")
        return saved

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        """Delete a value if the version is as expected."""
        await self._begin("delete")
        present = self.rows.get(key)
        deleted = present is not None and present.version == expected
        if deleted:
            del self.rows[key]
        await self.after("delete")
        return deleted

    async def scan(
        self, *, after: ConnectionKey | None, limit: int
    ) -> Sequence[tuple[ConnectionKey, StoredConnection]]:
        """Return the values after a key, in the order of keys."""
        await self._begin("scan")
        return [(key, row) for key, row in sorted(self.rows.items()) if after is None or key > after][:limit]

    async def aclose(self) -> None:
        """Do nothing."""
        self.calls["aclose"] += 1

    async def _begin(self, method: str) -> None:
        self.calls[method] += 1
        await asyncio.sleep(0)
        await self.before(method)
        if self.gone or (self.readonly and method != "load"):
            raise StoreUnavailable("the test says so")


async def _nothing(_method: str) -> None:
    return
