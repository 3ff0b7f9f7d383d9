"""Notices that a server has lost its data: each has an epoch marker, which is then absent or different."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.servers import MAX_SERVERS

if TYPE_CHECKING:
    from tokenmw.redis.connection import RedisConnection

__all__ = ["EpochMarkers"]


class EpochMarkers:
    """The markers seen last. Like the local caches, they outlive an event loop."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[bytes, bytes] = {}

    async def changed(self, connection: RedisConnection) -> bool:
        """Read or write the marker of each server, one command each. Return whether any may have lost data.

        A marker disappears with the data: after a restart without persistence, FLUSHALL, or eviction. And it contains
        the server's replication history, which changes when the server restarts or when a replica takes over, perhaps
        without the last writes. The same command returns the server's time, which the connection notes.
        """
        changed = False
        keys = connection.epoch_keys
        for key in keys:
            try:
                began = asyncio.get_running_loop().time()
                marker, created, milliseconds = await connection.run("marker", (key,), (secrets.token_hex(8),))
                connection.note_server_time(key, milliseconds, began=began)
            except RedisUnavailable:
                continue  # the guard has logged it, and what this server lost is noticed after it has recovered
            # A server without a marker may have lost what this process shared before it saw its first marker.
            changed |= bool(created) if key not in self._seen else self._seen[key] != marker
            self._seen[key] = marker
        if len(self._seen) > MAX_SERVERS:
            self._seen = {key: marker for key, marker in self._seen.items() if key in keys}
        return changed
