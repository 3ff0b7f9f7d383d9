"""The servers of Redis that a fleet uses: one, a primary with a replica behind a Sentinel, or a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from tests.faults.redis_contents import count_sessions, token_versions
from tests.faults.test_failover import Cluster, sentinel_of, until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from contextlib import ExitStack

__all__ = ["BehindSentinel", "OneServer", "Primaries", "Topology", "count_all_sessions", "highest_versions"]

MOVE_SECONDS = 0.05


class Topology(Protocol):
    """The servers of one fault."""

    async def form(self) -> None:
        """Wait until the servers know each other."""
        ...

    @property
    def redis(self) -> str | int:
        """How a worker connects: a URL, or the port of a Sentinel."""
        ...

    @property
    def primaries(self) -> list[RedisServer]:
        """The servers whose data counts now."""
        ...


class OneServer:
    """One server."""

    def __init__(self, stack: ExitStack) -> None:
        self.server = stack.enter_context(RedisServer())

    async def form(self) -> None:
        """Return: there are no others."""

    @property
    def redis(self) -> str:
        """The URL of the server."""
        return self.server.url

    @property
    def primaries(self) -> list[RedisServer]:
        """The server."""
        return [self.server]


class BehindSentinel:
    """A primary and a replica, with a Sentinel."""

    def __init__(self, stack: ExitStack) -> None:
        self.primary = stack.enter_context(RedisServer())
        self.replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(self.primary.port)))
        self.sentinel = stack.enter_context(sentinel_of(self.primary))

    async def form(self) -> None:
        """Wait until the Sentinel knows the replica."""
        await until(lambda: b"master_link_status:up" in self.replica.command("INFO", "replication"))
        await until(lambda: b"slaves=1" in self.sentinel.command("INFO", "sentinel"))
        # The Sentinel promotes no replica that was without its primary for ten times as long.
        self.sentinel.command("SENTINEL", "SET", "main", "down-after-milliseconds", 1500)

    def lag(self) -> int:
        """Return how many keys of the primary the replica does not have."""
        return len({*self.primary.command("KEYS", "*")} - {*self.replica.command("KEYS", "*")})

    async def promoted(self) -> None:
        """Wait until the replica is the primary, for the Sentinel as well."""
        await until(lambda: b"role:master" in self.replica.command("INFO", "replication"), within=30.0)
        await until(lambda: self.primaries == [self.replica])

    @property
    def redis(self) -> int:
        """The port of the Sentinel."""
        return self.sentinel.port

    @property
    def primaries(self) -> list[RedisServer]:
        """The server that the Sentinel names."""
        _host, port = self.sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return [server for server in (self.primary, self.replica) if server.port == int(port)]


class Primaries(Cluster):
    """A cluster of three primaries without replicas.

    With `full_coverage`, the default of Redis, no node executes commands while a slot has no primary.
    """

    def __init__(self, stack: ExitStack, *, full_coverage: bool) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        coverage = ("--cluster-require-full-coverage", "yes" if full_coverage else "no")
        self.nodes = [stack.enter_context(RedisServer(*options, *coverage)) for _ in range(3)]

    async def form(self) -> None:
        """Join the nodes, each with a third of the slots."""
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            low, high = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", low, high)
            node.command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        await until(lambda: all(self._knows_all(node) for node in self.nodes))
        await self.complete()

    async def complete(self) -> None:
        """Wait until all nodes find that all slots have a primary."""
        await until(lambda: all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.nodes))

    async def move_slowly(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot to another node; in between, half of its keys are on each node for a moment."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.name(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.name(target))
        keys: list[bytes] = source.command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        for key in keys[: (len(keys) + 1) // 2]:
            source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        await asyncio.sleep(MOVE_SECONDS)
        self.move(slot, source, target)

    @property
    def redis(self) -> str:
        """The URL of the first node."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    @property
    def primaries(self) -> list[RedisServer]:
        """All nodes."""
        return self.nodes

    def _knows_all(self, node: RedisServer) -> bool:
        lines: bytes = node.command("CLUSTER", "NODES")
        return lines.count(b"connected") == len(self.nodes) and b"handshake" not in lines


def count_all_sessions(servers: list[RedisServer]) -> int:
    """Count the session keys of all servers."""
    return sum(map(count_sessions, servers))


def highest_versions(servers: list[RedisServer], tokens: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return the version of each token, from the server that has it; 0 if none has it."""
    found = [token_versions(server, tokens) for server in servers]
    return {name: max(versions[name][0] for versions in found) for name in tokens}
