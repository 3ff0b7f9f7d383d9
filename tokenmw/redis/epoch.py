"""Notices that a server has lost its data: each has an epoch marker, which is then absent or different.

The same command notices processes that change tokens without announcing it: those of versions before hints, and those
for which hints are off.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.servers import MAX_SERVERS

if TYPE_CHECKING:
    from tokenmw.redis.connection import RedisConnection

__all__ = ["EpochMarkers"]

_SILENT: Final = b":silent"


class EpochMarkers:
    """The markers seen last. Like the local caches, they outlive an event loop.

    Attributes:
        silent: Whether a process may use one of the servers that does not announce what it changes.
    """

    __slots__ = ("_seen", "silent")

    def __init__(self) -> None:
        self._seen: dict[bytes, bytes] = {}
        self.silent = True

    async def changed(self, connection: RedisConnection, *, announces: bool) -> bool:
        """Read or write the marker of each server, one command each. Return whether any may have lost data.

        A marker disappears with the data: after a restart without persistence, FLUSHALL, or eviction. And it contains
        the server's replication history, which changes when the server restarts or when a replica takes over, perhaps
        without the last writes. The same command returns the server's time, which the connection notes.

        Args:
            connection: The connection.
            announces: Whether this process announces what it changes.
        """
        changed = silent = False
        keys = connection.epoch_keys
        for key in keys:
            try:
                began = asyncio.get_running_loop().time()
                keys_of_server = key, key.rpartition(b":")[0] + _SILENT
                args = secrets.token_hex(8), int(announces)
                marker, created, milliseconds, one_silent = await connection.run("marker", keys_of_server, args)
                connection.note_server_time(key, milliseconds, began=began)
            except RedisUnavailable:
                silent = True
                continue  # the guard has logged it, and what this server lost is noticed after it has recovered
            # A server without a marker may have lost what this process shared before it saw its first marker.
            changed |= bool(created) if key not in self._seen else self._seen[key] != marker
            self._seen[key] = marker
            silent |= bool(one_silent)
        self.silent = silent
        if len(self._seen) > MAX_SERVERS:
            self._seen = {key: marker for key, marker in self._seen.items() if key in keys}
        return changed
