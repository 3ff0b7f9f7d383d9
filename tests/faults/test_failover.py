"""A cluster loses a primary and moves a slot, and Sentinel fails over, under the load of two processes.

No request fails, session ids are kept, and new ids are shared afterwards without a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.sentinel import Sentinel

from tests.faults.load import NAMES, SECRET, WARM, under_load
from tests.processes import Workers
from tests.resp import RedisServerError
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

pytestmark = pytest.mark.campaign

TOKEN_LIFETIME = 4.0  # seconds
KEYS = [*WARM, *(f"key-{number}" for number in range(40))]
NEW_KEYS = [f"during-{number}" for number in range(40)]


async def until(condition: Callable[[], bool], *, within: float = 15.0) -> None:
    """Wait for a state that servers reach among themselves."""
    async with asyncio.timeout(within):
        while True:
            with contextlib.suppress(OSError, RedisServerError):
                if condition():
                    return
            await asyncio.sleep(0.05)


class Service:
    """Two processes under steady load."""

    def __init__(self, workers: Workers, provider: ProviderServer) -> None:
        self._workers = workers
        self._provider = provider
        self._began = time.monotonic()

    async def begin(self, phase: str, keys: list[str]) -> None:
        """Begin a phase with these new keys, in any state of Redis."""
        await self._workers.send({"phase": phase, "keys": keys})
        await self._workers.receive()

    async def wait_until_known(self, keys: list[str]) -> None:
        """Wait until both processes have an id for each of these keys."""
        async with asyncio.timeout(20):
            while any(None in state["ids"].values() for state in await self._ask(keys)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def wait_until_shared(self, keys: list[str]) -> dict[str, str]:
        """Wait until both processes have shared everything, and return the ids that they then have."""
        async with asyncio.timeout(15):
            while True:
                first, second = await self._ask(keys)
                idle = all((state["shared"], state["waiting"]) == ("up", 0) for state in (first, second))
                if idle and first["ids"] == second["ids"] and None not in first["ids"].values():
                    ids: dict[str, str] = first["ids"]
                    return ids
                await asyncio.sleep(0.05)

    async def stop_and_check(self) -> None:
        """Stop the load, and check the results of all requests."""
        await self._workers.send({"stop": True})
        reports = await self._workers.results()
        phases = [phase for report in reports for phase in report["phases"].values()]
        assert [] == [failure for phase in phases for failure in phase["failures"]]
        # In the first phase, a slow start may replace an id.
        assert [] == [key for report in reports for key in report["phases"]["during"]["changed"]]
        assert 0 == sum(phase["expired"] for phase in phases)
        for name, values in [(name, phase["values"][name]) for phase in phases for name in NAMES]:
            assert {name} >= {getattr(self._provider.issued.find(value), "client", None) for value in values}
        lifetimes = (time.monotonic() - self._began) / (TOKEN_LIFETIME * 0.75) + 1
        assert self._provider.calls["oauth2"] <= 2 * len(NAMES) * lifetimes
        # An outage that begins again is logged again. Without suppression there would be a line for each command.
        assert all(len(report["lines"]) <= 8 for report in reports), [report["lines"] for report in reports]

    async def _ask(self, keys: list[str]) -> list[dict[str, Any]]:
        await self._workers.send({"ask": keys})
        states: list[dict[str, Any]] = await self._workers.receive()
        return states


@contextlib.asynccontextmanager
async def service(target: str, **arguments: Any) -> AsyncGenerator[Service]:
    """Run a service whose processes share Redis and the token servers."""
    provider, long_lived = ProviderServer(token_life=TOKEN_LIFETIME), ProviderServer()
    with provider.running() as base_url, long_lived.running() as long_lived_url:
        arguments |= {"base_url": base_url, "long_lived_url": long_lived_url, "limits": {"command_seconds": 0.5}}
        async with Workers(target, processes=2, arguments=arguments) as workers:
            await workers.receive()
            yield Service(workers, provider)


async def ids_of_new_broker(url: str, keys: list[str]) -> dict[str, str]:
    """Return the ids that a broker with empty caches gets."""
    async with TokenBroker({}, redis=url, secret_key=SECRET, limits=Limits(command_seconds=3.0)) as broker:
        return {key: await broker.session_id(key) for key in keys}


class Cluster:
    """Three primaries with one replica each."""

    def __init__(self, stack: ExitStack) -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-replica-validity-factor",
            "0",
        )
        self.nodes = [stack.enter_context(RedisServer(*options)) for _ in range(6)]

    @property
    def url(self) -> str:
        """The URL of a node that runs."""
        running = next(node for node in self.nodes if node.answers(within=0.5))
        return f"redis+cluster://127.0.0.1:{running.port}"

    async def meet(self) -> None:
        """Form the cluster."""
        first, *others = self.nodes
        for epoch, node in enumerate(self.nodes, 1):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node in others:
            node.command("CLUSTER", "MEET", "127.0.0.1", first.port)
        await until(lambda: all(node.command("CLUSTER", "NODES").count(b"\n") == 6 for node in self.nodes))
        await until(lambda: all(b"handshake" not in node.command("CLUSTER", "NODES") for node in self.nodes))
        for number, primary in enumerate(self.nodes[:3]):
            low, high = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            primary.command("CLUSTER", "ADDSLOTSRANGE", low, high)
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            replica.command("CLUSTER", "REPLICATE", self.name(primary))
        await until(lambda: all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.nodes))
        await until(
            lambda: all(b"connected_slaves:1" in node.command("INFO", "replication") for node in self.nodes[:3])
        )
        await until(lambda: all(b"master_link_status:up" in n.command("INFO", "replication") for n in self.nodes[3:]))

    def name(self, node: RedisServer) -> bytes:
        """Return the id of a node."""
        name: bytes = node.command("CLUSTER", "MYID")
        return name

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot with its keys to another node, with the commands that operators use."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.name(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.name(target))
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            for key in keys:
                source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", self.name(target))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes the servers of one test."""
    with ExitStack() as stack:
        yield stack


async def test_a_cluster_moves_a_slot_and_loses_a_primary(stack: ExitStack) -> None:
    """Session ids are the same after a slot was moved, and after a replica took over, also for a new broker."""
    cluster = Cluster(stack)
    await cluster.meet()
    first, second = cluster.nodes[:2]
    async with service("tests.faults.load:under_load", redis=cluster.url) as load:
        await load.begin("before", KEYS)
        await load.wait_until_known(KEYS)
        before = await load.wait_until_shared(KEYS)
        assert before == await ids_of_new_broker(cluster.url, KEYS)
        key = next(key for key in first.command("KEYS", "tokenmw:*:session"))
        cluster.move(first.command("CLUSTER", "KEYSLOT", key), first, second)
        assert before == await ids_of_new_broker(cluster.url, KEYS)
        await until(lambda: all(b"slave0" in node.command("INFO", "replication") for node in cluster.nodes[:3]))
        await load.begin("during", NEW_KEYS)
        second.kill()
        await load.wait_until_known(NEW_KEYS)
        await until(lambda: b"role:master" in cluster.nodes[4].command("INFO", "replication"))
        await until(lambda: b"cluster_state:ok" in first.command("CLUSTER", "INFO"))
        await load.begin("idle", [])
        after = await load.wait_until_shared([*KEYS, *NEW_KEYS])
        assert before == {key: after[key] for key in before}
        assert after == await ids_of_new_broker(cluster.url, [*after])
        await load.stop_and_check()


async def test_sentinel_fails_over(stack: ExitStack) -> None:
    """A client of `master_for` finds the new primary; ids are kept, and new ones are shared."""
    primary = stack.enter_context(RedisServer())
    replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(primary.port)))
    sentinel = stack.enter_context(sentinel_of(primary))
    await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
    await until(lambda: b"slaves=1" in sentinel.command("INFO", "sentinel"))
    async with service("tests.faults.test_failover:behind_sentinel", port=sentinel.port) as load:
        await load.begin("before", KEYS)
        await load.wait_until_known(KEYS)
        before = await load.wait_until_shared(KEYS)
        await until(lambda: primary.command("WAIT", 1, 1000) == 1)
        await load.begin("during", NEW_KEYS)
        primary.kill()
        await load.wait_until_known(NEW_KEYS)
        await until(lambda: b"role:master" in replica.command("INFO", "replication"))
        await load.begin("idle", [])
        after = await load.wait_until_shared([*KEYS, *NEW_KEYS])
        assert before == {key: after[key] for key in before}
        assert after == await ids_of_new_broker(replica.url, [*after])
        await load.stop_and_check()


async def behind_sentinel(*, port: int, **options: Any) -> dict[str, Any]:
    """Run the load with a client of `master_for`."""
    constructor: Any = Sentinel  # it has no types
    sentinel = constructor([("127.0.0.1", port)])
    client = sentinel.master_for("main", socket_timeout=1.0)
    try:
        return await under_load(redis=client, **options)
    finally:
        await client.aclose()
        for connected in sentinel.sentinels:
            await connected.aclose()


@contextlib.contextmanager
def sentinel_of(primary: RedisServer) -> Generator[RedisServer]:
    """Run a Sentinel that monitors one primary, with a quorum of one."""
    lines = [
        f"sentinel monitor main 127.0.0.1 {primary.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 3000",
    ]
    with RedisServer(sentinel="\n".join(lines)) as sentinel:
        yield sentinel
