"""A store that stops at chosen points of a refresh, around any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenmw.connections import ConnectionKey, ConnectionStore, StoredConnection

__all__ = ["PausedStore"]


class PausedStore:
    """A `ConnectionStore` around another one.

    Args:
        store: The other one.
        hook: Called with `load`, `claim` or `commit`, and `before` or `after`: the first write is the claim, the others
            commit.
    """

    def __init__(self, store: ConnectionStore, hook: Callable[[str, str], Awaitable[None]]) -> None:
        self._store = store
        self._hook = hook
        self._writes = 0

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        """Return the value of a key."""
        await self._hook("load", "before")
        found = await self._store.load(key)
        await self._hook("load", "after")
        return found

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        """Store a value if the version is as expected."""
        self._writes += 1
        name = "claim" if self._writes == 1 else "commit"
        await self._hook(name, "before")
        saved = await self._store.save(key, value, expected=expected)
        await self._hook(name, "after")
        return saved

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        """Delete a value if the version is as expected."""
        return await self._store.delete(key, expected=expected)

    async def scan(
        self, *, after: ConnectionKey | None, limit: int
    ) -> Sequence[tuple[ConnectionKey, StoredConnection]]:
        """Return the values after a key."""
        return await self._store.scan(after=after, limit=limit)

    async def aclose(self) -> None:
        """Close the other store."""
        await self._store.aclose()
