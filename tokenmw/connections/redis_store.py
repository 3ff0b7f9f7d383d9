"""Connections in Redis or Valkey, for programs without an SQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.connections.store import ConnectionKey, StoredConnection, StoreUnavailable
from tokenmw.errors import ConfigurationError
from tokenmw.observe.throttle import warn
from tokenmw.options import checked_namespace, positive_number
from tokenmw.redaction import Unpicklable
from tokenmw.redis.connection_rows import ConnectionRows
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from typing import TypeVar

    from tokenmw.redis.client import RedisOption

    T = TypeVar("T")

__all__ = ["RedisStore"]

_UNKNOWN: Final = "RedisStore: this user may not run INFO, so it is not known whether the server persists. Allow INFO."
_NOT_PERSISTENT: Final = (
    "RedisStore: the server loses its data when it restarts, and all users have to connect again. Set appendonly yes."
)
_EVICTS: Final = (
    "RedisStore: the server evicts any key when it is full, and that user has to connect again. "
    "Set maxmemory-policy noeviction."
)


class RedisStore(Unpicklable):
    """Keeps connections in Redis 6.2 or newer, or Valkey.

    A value is as durable as the server makes it: with `appendonly yes`, it outlives the server's process, and with
    `appendfsync always` a crash of the machine. A failover may lose the last writes: see `replicas`. A server that does
    not persist, or that evicts, is logged. `load` reads from the primary. Names of apps and users are readable in
    Redis, tokens are sealed. All rows have one hash tag.

    Args:
        redis: A URL as for `TokenBroker`, or a client of `redis.asyncio`, which belongs to one event loop and is not
            closed.
        namespace: What precedes all keys.
        seconds: How long one call may take. Then it fails, and may have been done nevertheless.
        replicas: How many replicas must confirm a write before it counts; for one server or a Sentinel.
    """

    __slots__ = ("_checked", "_rows")

    def __init__(
        self, redis: str | RedisOption, *, namespace: str = "tokenmw", seconds: float = 5.0, replicas: int = 0
    ) -> None:
        if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            raise ConfigurationError("RedisStore: replicas must be an int, 0 or more.")
        self._rows = ConnectionRows(
            redis,
            namespace=checked_namespace(namespace),
            seconds=positive_number(seconds, option="RedisStore: seconds"),
            replicas=replicas,
        )
        self._checked = False

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        """Return the latest value; None if there is none."""
        found = await self._run(self._rows.load(key.digest))
        return None if found is None else StoredConnection(*found)

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        """Store a value as version `expected + 1` if the present version is `expected`; 0: if there is none."""
        saving = self._rows.save(key.digest, app=key.app, subject=key.subject, value=value, expected=expected)
        return await self._run(saving)

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        """Delete the value if the present version is `expected`. Return whether it was deleted."""
        return await self._run(self._rows.delete(key.digest, expected=expected))

    async def scan(
        self, *, after: ConnectionKey | None, limit: int
    ) -> Sequence[tuple[ConnectionKey, StoredConnection]]:
        """Return up to `limit` connections, ordered by digest, those after a key."""
        rows = await self._run(self._rows.scan(after="" if after is None else after.digest, limit=limit))
        return [
            (ConnectionKey(app, subject, digest), StoredConnection(version, value))
            for digest, app, subject, version, value in rows
        ]

    async def aclose(self) -> None:
        """Close the client of the running event loop. The store may be used again, also in another loop."""
        await self._rows.aclose()

    async def _run(self, operation: Awaitable[T]) -> T:
        try:
            result = await operation
        except RedisUnavailable as error:
            reason = error.reason
        else:
            await self._check()
            return result
        raise StoreUnavailable(f"Redis, the store of connections, is unavailable ({reason}, {self._rows.address})")

    async def _check(self) -> None:
        """Log once what makes the server no durable store."""
        if self._checked:
            return
        self._checked = True
        try:
            weaknesses = await self._rows.weaknesses()
        except RedisUnavailable:
            self._checked = False
            return
        for weakness in weaknesses:
            match weakness:
                case "unknown":
                    warn("store-not-durable", _UNKNOWN)
                case "not-persistent":
                    warn("store-not-durable", _NOT_PERSISTENT)
                case "evicts":
                    warn("store-not-durable", _EVICTS)
