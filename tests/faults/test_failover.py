"""A cluster that loses a master and moves a entry, and a failover by Sentinel, under the load of two processes.

Requests go on, ids stay, and what was made meanwhile is shared afterwards without a request.
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

LIFE = 4.0  # seconds that a token lives
KEYS = [*WARM, *(f"key-{number}" for number in range(40))]
FRESH = [f"during-{number}" for number in range(40)]


async def until(condition: Callable[[], bool], *, within: float = 15.0) -> None:
    """Wait for what servers do between themselves."""
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

    async def goes_on(self, phase: str, keys: list[str]) -> None:
        """Let it meet these keys, in whichever state it finds Redis."""
        await self._workers.send({"phase": phase, "keys": keys})
        await self._workers.receive()

    async def has_met(self, keys: list[str]) -> None:
        """Wait until both processes know these keys."""
        async with asyncio.timeout(20):
            while any(None in answer["ids"].values() for answer in await self._asked(keys)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def shared(self, keys: list[str]) -> dict[str, str]:
        """Wait until all that both processes know is shared; return the ids that they then have."""
        async with asyncio.timeout(15):
            while True:
                first, second = await self._asked(keys)
                idle = all((one["shared"], one["waiting"]) == ("up", 0) for one in (first, second))
                if idle and first["ids"] == second["ids"] and None not in first["ids"].values():
                    ids: dict[str, str] = first["ids"]
                    return ids
                await asyncio.sleep(0.05)

    async def ends(self) -> None:
        """End it, and look at what its requests have seen."""
        await self._workers.send({"end": True})
        reports = await self._workers.results()
        phases = [phase for report in reports for phase in report["phases"].values()]
        assert [] == [failure for phase in phases for failure in phase["failures"]]
        # Before it all, a slow start may make an id twice.
        assert [] == [key for report in reports for key in report["phases"]["during"]["moved"]]
        assert 0 == sum(phase["expired"] for phase in phases)
        for name, values in [(name, phase["values"][name]) for phase in phases for name in NAMES]:
            assert {name} >= {getattr(self._provider.issued.find(value), "client", None) for value in values}
        lives = (time.monotonic() - self._began) / (LIFE * 0.75) + 1
        assert self._provider.calls["oauth2"] <= 2 * len(NAMES) * lives
        # What comes and goes may be told a few times; each of them would be dozens of commands.
        assert all(len(report["lines"]) <= 8 for report in reports), [report["lines"] for report in reports]

    async def _asked(self, keys: list[str]) -> list[dict[str, Any]]:
        await self._workers.send({"ask": keys})
        answers: list[dict[str, Any]] = await self._workers.receive()
        return answers


@contextlib.asynccontextmanager
async def service(target: str, **arguments: Any) -> AsyncGenerator[Service]:
    """Run one; what its processes have in common is Redis and the token servers."""
    provider, lasting = ProviderServer(token_life=LIFE), ProviderServer()
    with provider.running() as base_url, lasting.running() as lasting_url:
        arguments |= {"base_url": base_url, "lasting_url": lasting_url, "limits": {"command_seconds": 0.5}}
        async with Workers(target, processes=2, arguments=arguments) as workers:
            await workers.receive()
            yield Service(workers, provider)


async def told_to_a_newcomer(url: str, keys: list[str]) -> dict[str, str]:
    """Return the ids that a third process gets, which knows none."""
    async with TokenBroker({}, redis=url, secret_key=SECRET, limits=Limits(command_seconds=3.0)) as newcomer:
        return {key: await newcomer.session_id(key) for key in keys}


class Cluster:
    """Three masters with a replica each."""

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
        """Any node that lives will do."""
        alive = next(node for node in self.nodes if node.answers(within=0.5))
        return f"redis+cluster://127.0.0.1:{alive.port}"

    async def meet(self) -> None:
        """Form the cluster."""
        first, *others = self.nodes
        for epoch, node in enumerate(self.nodes, 1):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node in others:
            node.command("CLUSTER", "MEET", "127.0.0.1", first.port)
        await until(lambda: all(node.command("CLUSTER", "NODES").count(b"\n") == 6 for node in self.nodes))
        await until(lambda: all(b"handshake" not in node.command("CLUSTER", "NODES") for node in self.nodes))
        for number, master in enumerate(self.nodes[:3]):
            low, high = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            master.command("CLUSTER", "ADDSLOTSRANGE", low, high)
        for master, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            replica.command("CLUSTER", "REPLICATE", self.name(master))
        await until(lambda: all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.nodes))
        await until(
            lambda: all(b"connected_slaves:1" in node.command("INFO", "replication") for node in self.nodes[:3])
        )
        await until(lambda: all(b"master_link_status:up" in n.command("INFO", "replication") for n in self.nodes[3:]))

    def name(self, node: RedisServer) -> bytes:
        """Return a node's id."""
        name: bytes = node.command("CLUSTER", "MYID")
        return name

    def move(self, entry: int, source: RedisServer, target: RedisServer) -> None:
        """Move a entry with its keys, as an operator does."""
        target.command("CLUSTER", "SETSLOT", entry, "IMPORTING", self.name(source))
        source.command("CLUSTER", "SETSLOT", entry, "MIGRATING", self.name(target))
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", entry, 10):
            for key in keys:
                source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", entry, "NODE", self.name(target))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What the servers of one test are closed with."""
    with ExitStack() as stack:
        yield stack


async def test_a_cluster_goes_on_after_a_master_dies_and_a_slot_moves(stack: ExitStack) -> None:
    """Its replica takes over; ids stay, here and for a newcomer."""
    cluster = Cluster(stack)
    await cluster.meet()
    first, second = cluster.nodes[:2]
    async with service("tests.faults.load:under_load", redis=cluster.url) as load:
        await load.goes_on("before", KEYS)
        await load.has_met(KEYS)
        before = await load.shared(KEYS)
        assert before == await told_to_a_newcomer(cluster.url, KEYS)
        key = next(key for key in first.command("KEYS", "tokenmw:*:session"))
        cluster.move(first.command("CLUSTER", "KEYSLOT", key), first, second)
        assert before == await told_to_a_newcomer(cluster.url, KEYS)
        await until(lambda: all(b"slave0" in node.command("INFO", "replication") for node in cluster.nodes[:3]))
        await load.goes_on("during", FRESH)
        second.kill()
        await load.has_met(FRESH)
        await until(lambda: b"role:master" in cluster.nodes[4].command("INFO", "replication"))
        await until(lambda: b"cluster_state:ok" in first.command("CLUSTER", "INFO"))
        await load.goes_on("quiet", [])
        after = await load.shared([*KEYS, *FRESH])
        assert before == {key: after[key] for key in before}
        assert after == await told_to_a_newcomer(cluster.url, [*after])
        await load.ends()


async def test_sentinel_fails_over(stack: ExitStack) -> None:
    """A ready client of `master_for` finds the new primary; ids stay, and what was made meanwhile is shared."""
    primary = stack.enter_context(RedisServer())
    replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(primary.port)))
    watch = stack.enter_context(sentinel_of(primary))
    await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
    await until(lambda: b"slaves=1" in watch.command("INFO", "sentinel"))
    async with service("tests.faults.test_failover:behind_sentinel", port=watch.port) as load:
        await load.goes_on("before", KEYS)
        await load.has_met(KEYS)
        before = await load.shared(KEYS)
        await until(lambda: primary.command("WAIT", 1, 1000) == 1)
        await load.goes_on("during", FRESH)
        primary.kill()
        await load.has_met(FRESH)
        await until(lambda: b"role:master" in replica.command("INFO", "replication"))
        await load.goes_on("quiet", [])
        after = await load.shared([*KEYS, *FRESH])
        assert before == {key: after[key] for key in before}
        assert after == await told_to_a_newcomer(replica.url, [*after])
        await load.ends()


async def behind_sentinel(*, port: int, **options: Any) -> dict[str, Any]:
    """Be under load with a ready client of `master_for`."""
    made: Any = Sentinel  # its constructor has no types
    sentinel = made([("127.0.0.1", port)])
    client = sentinel.master_for("main", socket_timeout=1.0)
    try:
        return await under_load(redis=client, **options)
    finally:
        await client.aclose()
        for one in sentinel.sentinels:
            await one.aclose()


@contextlib.contextmanager
def sentinel_of(primary: RedisServer) -> Generator[RedisServer]:
    """Run a Sentinel that watches one primary and needs no other's vote."""
    lines = [
        f"sentinel monitor main 127.0.0.1 {primary.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 3000",
    ]
    with RedisServer(sentinel="\n".join(lines)) as watch:
        yield watch
