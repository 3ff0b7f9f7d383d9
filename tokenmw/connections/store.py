"""Where connections are kept: a protocol of five methods. Each value has a version, and each write compares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from tokenmw.redaction import Unpicklable, not_encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ConnectionKey", "ConnectionStore", "StoreUnavailable", "StoredConnection"]


class ConnectionKey(NamedTuple):
    """Which connection: one user's account at one app.

    Attributes:
        app: The app's name in `Connections`.
        subject: The user, as the `subject` of `Connections` returns it.
        digest: A keyed digest of both, for stores in which the user is not to be readable.
    """

    app: str
    subject: str
    digest: str


@not_encoded
@dataclass(frozen=True, slots=True, repr=False)
class StoredConnection(Unpicklable):
    """What a store has of one connection.

    Attributes:
        version: Counts the writes of this connection, from 1.
        value: The sealed document, at most 64 KiB.
    """

    version: int
    value: bytes


class StoreUnavailable(Exception):
    """Raised by a store that cannot answer now. The text has no secret: it goes into the log.

    A write that raises it may have been done nevertheless.
    """


@runtime_checkable
class ConnectionStore(Protocol):
    """A durable store of connections.

    Every method may be called by many tasks at the same time, and may be cancelled at each await. It raises
    `StoreUnavailable` if the store cannot answer.
    """

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        """Return the latest committed value, never one of a replica that may be older; None if there is none."""
        ...

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        """Store a value as version `expected + 1` if the present version is `expected`; 0: if there is none.

        Return whether it was stored. When it returns True, the value is durable.
        """
        ...

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        """Delete the value if the present version is `expected`. Return whether it was deleted."""
        ...

    async def scan(
        self, *, after: ConnectionKey | None, limit: int
    ) -> Sequence[tuple[ConnectionKey, StoredConnection]]:
        """Return up to `limit` connections in the store's own order, those after a key; for re-sealing and export."""
        ...

    async def aclose(self) -> None:
        """Release what the running event loop has opened. The store may be used again, also in another loop."""
        ...
