"""Which server has a key: the one server, or one of a cluster's primaries, each with a breaker of its own.

One primary that is down leaves the others in use. Keys are told apart by what the client knows of the slots at the
moment; where it knows nothing yet, all keys are with one that has no name.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import redis.asyncio as redis
from redis.exceptions import RedisClusterException, RedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenmw.shared.client import AnyClient
    from tokenmw.shared.keys import Names
    from tokenmw.shared.primary import Primary

__all__ = ["Primaries"]

_MOST: Final = 1_000  # as many as a cluster may have; those beyond it share a breaker
_TRIES: Final = 64  # for each primary; so many names of marks find one in nearly every slot range


class Primaries:
    """The servers that have been used, by name; a single server has the empty name."""

    __slots__ = ("_client", "_make", "_names", "_used")

    def __init__(self, client: AnyClient, *, names: Names, make: Callable[[bytes], Primary]) -> None:
        self._client = client
        self._names = names
        self._make = make
        self._used = {"": make(names.key("probe", "probe"))}

    def __iter__(self) -> Iterator[Primary]:
        return iter(list(self._used.values()))

    def of(self, key: bytes) -> Primary:
        """Return the server that has a key."""
        name = self._name(key)
        primary = self._used.get(name)
        if primary is None:
            self._forget()
            primary = self._used[""] if len(self._used) >= _MOST else self._used.setdefault(name, self._make(key))
        primary.key = key
        return primary

    def marks(self) -> list[bytes]:
        """Return a key for each server, under which it holds its mark. All instances come to the same ones."""
        if not isinstance(self._client, redis.RedisCluster):
            return [self._names.key("marker", "marker")]
        servers = {str(nodes[0].name) for nodes in self._client.nodes_manager.slots_cache.values() if nodes}
        found: dict[str, bytes] = {}
        for number in range(_TRIES * len(servers)):
            key = self._names.key(f"marker-{number}", "marker")
            found.setdefault(self._name(key), key)
            if len(found) == len(servers):
                break
        return list(found.values())

    async def look_again(self) -> None:
        """Ask the cluster who has which slot. A primary that hangs is not replaced by an error of its own."""
        if not isinstance(self._client, redis.RedisCluster):
            return
        try:
            async with asyncio.timeout(1.0):
                await self._client.nodes_manager.initialize()
        except (RedisError, RedisClusterException, OSError):
            return  # the next probe asks again

    def _name(self, key: bytes) -> str:
        if not isinstance(self._client, redis.RedisCluster):
            return ""
        nodes = self._client.nodes_manager.slots_cache.get(self._client.keyslot(key))
        return str(nodes[0].name) if nodes else ""

    def _forget(self) -> None:
        # Servers come and go; one that is out stays until its probe, which follows the slot, succeeds.
        if len(self._used) >= _MOST:
            for name, primary in list(self._used.items()):
                if name and not primary.guard.breaker.open:
                    del self._used[name]
