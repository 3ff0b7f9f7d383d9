"""Finds the server of a key: the only one, or one of a cluster's primaries, each with a circuit of its own.

A primary that is down does not affect the keys of the others. Which primary has a key is what the client knows of the
slots; until it knows them, all keys belong to one server without a name. Primaries come and go: one that has no slots
any more is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import redis.asyncio as redis

from tokenmw.redaction import Unpicklable
from tokenmw.redis.guard import CommandLimiter, Guard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.listening import OnCommand, ServerListener

__all__ = ["MAX_SERVERS", "Server", "Servers"]

MAX_SERVERS: Final = 1_000  # the primaries of one cluster; any beyond that share one circuit
_TRIES: Final = 64  # for each primary; with that many names, nearly every slot range has one


class Server(Unpicklable):
    """One server.

    Attributes:
        guard: Runs its commands.
        clock_offset: Seconds by which its clock is ahead of the event loop's, too high by the duration of a command at
            most; None while unknown.
    """

    __slots__ = ("clock_offset", "guard")

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.clock_offset: float | None = None


class Servers(Unpicklable):
    """The servers that have been used."""

    __slots__ = (
        "_by_node",
        "_client",
        "_clock",
        "_cluster",
        "_echo",
        "_limiter",
        "_limits",
        "_listener",
        "_log",
        "_names",
        "_on_command",
    )

    def __init__(
        self,
        client: AnyClient,
        *,
        names: KeyNames,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        listener: ServerListener,
        echo: bool = False,
        on_command: OnCommand | None = None,
    ) -> None:
        self._client = client
        self._cluster = client if isinstance(client, redis.RedisCluster) else None  # asked for each key: 1 µs
        self._names = names
        self._limits = limits
        self._limiter = CommandLimiter(limits)
        self._clock = clock
        self._log = log
        self._listener = listener
        self._echo = echo
        self._on_command = on_command
        self._by_node = {"": self._make("", names.key("probe", "probe"))}

    def __iter__(self) -> Iterator[Server]:
        return iter(list(self._by_node.values()))

    @property
    def one_slot(self) -> bool:
        """Whether all keys are on one server, so that a command may have any of them together."""
        return self._cluster is None

    def __len__(self) -> int:
        return len(self._by_node)

    @property
    def load(self) -> tuple[int, int]:
        """The commands to all servers that have a connection, and those that wait for one."""
        return self._limiter.load

    def of(self, key: bytes) -> Server:
        """Return the server that has a key."""
        node = self._node_of(key)
        server = self._by_node.get(node)
        if server is None:
            self._make_room()
            if len(self._by_node) < MAX_SERVERS:
                server = self._by_node[node] = self._make(node, key)
            else:
                server = self._by_node[""]
        server.guard.key = key
        return server

    def epoch_keys(self) -> list[bytes]:
        """Return a key for each server, for its epoch marker. All instances find the same keys."""
        if self._cluster is None:
            return [self._names.key("marker", "marker")]
        nodes = self._nodes_with_slots()
        found: dict[str, bytes] = {}
        for number in range(_TRIES * len(nodes)):
            key = self._names.key(f"marker-{number}", "marker")
            found.setdefault(self._node_of(key), key)
            if len(found) == len(nodes):
                break
        return list(found.values())

    @property
    def current(self) -> list[Server]:
        """The servers without those that have left the cluster, or are replicas by now. From any thread."""
        departed = self._departed()
        return [server for node, server in list(self._by_node.items()) if node not in departed]

    def forget_departed(self) -> None:
        """Forget the servers that have left the cluster, or are replicas by now."""
        for node in self._departed():
            del self._by_node[node]

    def _departed(self) -> set[str]:
        servers = dict(self._by_node)
        # Usually the slot of each key is where it was, and the slots need not be searched, which takes 1 ms.
        moved = {node for node, server in servers.items() if node and self._node_of(server.guard.key) != node}
        nodes = self._nodes_with_slots() if moved else set[str]()
        if not nodes:
            return nodes
        # One that fails stays until a probe, which follows the slot, has succeeded: its recovery is reported.
        return {node for node in moved - nodes if not servers[node].guard.breaker.failing}

    def _nodes_with_slots(self) -> set[str]:
        slots = {} if self._cluster is None else self._cluster.nodes_manager.slots_cache
        return {str(nodes[0].name) for nodes in slots.values() if nodes}

    def _node_of(self, key: bytes) -> str:
        if self._cluster is None:
            return ""
        nodes = self._cluster.nodes_manager.slots_cache.get(self._cluster.keyslot(key))
        return str(nodes[0].name) if nodes else ""

    def _make(self, node: str, key: bytes) -> Server:
        return Server(
            Guard(
                self._client,
                key=key,
                limits=self._limits,
                limiter=self._limiter,
                clock=self._clock,
                log=self._log,
                listener=self._listener,
                node=node,
                echo=self._echo,
                on_command=self._on_command,
            )
        )

    def _make_room(self) -> None:
        # Nodes come and go. One whose circuit is open stays until its probe, which follows the slot, succeeds.
        if len(self._by_node) >= MAX_SERVERS:
            for node, server in list(self._by_node.items()):
                if node and not server.guard.breaker.open:
                    del self._by_node[node]
