"""Noticing that a server has lost what it held: each has a mark, and one that is new or different tells of it."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from tokenmw.redis.connection import RedisConnection

__all__ = ["EpochMarkers"]

_MOST: Final = 1_000  # as many as a cluster has primaries


class EpochMarkers:
    """The marks seen last. They outlive an event loop, as do the local copies."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[bytes, bytes] = {}

    async def changed(self, connection: RedisConnection) -> bool:
        """Look at the marks of all servers, one command each. Return whether any may have lost what it held.

        A mark goes with the data: restarted empty, emptied by FLUSHALL, evicted. And it has the server's history in it,
        which changes when a server is restarted or takes over from another without its last writes. In passing the
        connection learns the server's time.
        """
        changed = False
        keys = connection.marks
        for key in keys:
            try:
                began = asyncio.get_running_loop().time()
                mark, made, now = await connection.run("marker", (key,), (secrets.token_hex(8),))
                connection.learn_time(key, now, began=began)
            except RedisUnavailable:
                continue  # the guard has counted it; what this server has lost is noticed when it is back
            # Whoever is first to see a server without a mark has perhaps shared something before.
            changed |= bool(made) if key not in self._seen else self._seen[key] != mark
            self._seen[key] = mark
        if len(self._seen) > _MOST:
            self._seen = {key: mark for key, mark in self._seen.items() if key in keys}
        return changed
