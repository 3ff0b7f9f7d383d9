"""Hints in a cluster, where any node passes them on, and behind a Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from tests.broker.hints import CHANNEL, SECRET, listeners
from tests.brokers import runtime_of
from tests.faults.test_failover import Cluster, sentinel_of, until
from tests.redis.clusters import needs_cluster_urls
from tests.servers import RedisServer
from tokenmw import TokenBroker
from tokenmw.observe.events import TokenInvalidated
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.campaign

TOKENS = 30
"""On each of three primaries some."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes the servers of one test."""
    with ExitStack() as stack:
        yield stack


def broker_of(redis: Any, dropped: set[str] | None = None) -> TokenBroker:
    """Make an instance that records the names of the tokens it drops."""

    def observe(event: object) -> None:
        if isinstance(event, TokenInvalidated) and dropped is not None:
            dropped.add(event.provider)

    providers = {f"p{n}": StaticToken(f"t{n}".__str__, credential_id=f"c{n}") for n in range(TOKENS)}
    return TokenBroker(providers, redis=redis, secret_key=SECRET, observers=[observe])


async def all_are_noticed(first: TokenBroker, second: TokenBroker, dropped: set[str], *, within: float) -> None:
    """Invalidate all tokens on one instance, and wait until the other one has dropped them."""
    names = {f"p{n}" for n in range(TOKENS)}
    for name in names:
        assert (await first.token(name)).value == (await second.token(name)).value
    dropped.clear()
    for name in names:
        await first.invalidate_provider(name)
    await until(lambda: dropped == names, within=within)


@needs_cluster_urls
async def test_one_connection_hears_all_nodes_of_a_cluster(stack: ExitStack) -> None:
    """Whichever node a token is on; also for a program's own client, and after a primary was killed."""
    cluster = Cluster(stack)
    await cluster.meet()
    dropped: set[str] = set()
    client: Any = RedisCluster.from_url(f"redis://127.0.0.1:{cluster.nodes[0].port}")
    async with broker_of(cluster.url) as first, broker_of(client, dropped) as second:
        await until(lambda: sum(map(listeners, cluster.nodes)) == 2)
        await all_are_noticed(first, second, dropped, within=2)
        heard_by = next(node for node in cluster.nodes if listeners(node))
        heard_by.command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0)
        await until(lambda: sum(map(listeners, cluster.nodes)) == 2)
        await all_are_noticed(first, second, dropped, within=2)
    await client.aclose()


@needs_cluster_urls
async def test_a_node_that_left_the_cluster_is_not_listened_to(stack: ExitStack) -> None:
    """It still answers PING, but hears nothing of the others."""
    cluster = Cluster(stack)
    await cluster.meet()
    async with broker_of(cluster.url) as broker:
        await until(lambda: sum(map(listeners, cluster.nodes)) == 1)
        left = next(node for node in cluster.nodes if listeners(node))
        client: Any = runtime_of(broker).redis
        nodes = client.client.nodes_manager.nodes_cache
        node = nodes.pop(next(name for name in nodes if name.endswith(f":{left.port}")))
        try:
            await until(lambda: listeners(left) == 0, within=3)
            await until(lambda: sum(map(listeners, cluster.nodes)) == 1, within=3)
        finally:
            await node.disconnect()


async def test_hints_follow_a_sentinel_to_the_new_primary(stack: ExitStack) -> None:
    """After a failover the listener is connected to the new primary."""
    primary = stack.enter_context(RedisServer())
    replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(primary.port)))
    sentinel = stack.enter_context(sentinel_of(primary))
    await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
    await until(lambda: b"slaves=1" in sentinel.command("INFO", "sentinel"))
    dropped: set[str] = set()
    constructor: Any = Sentinel  # it has no types
    async with contextlib.AsyncExitStack() as clients:
        brokers: list[TokenBroker] = []
        for names in (None, dropped):
            found = constructor([("127.0.0.1", sentinel.port)])
            client = found.master_for("main", socket_timeout=1.0)
            clients.push_async_callback(client.aclose)
            clients.push_async_callback(found.sentinels[0].aclose)
            brokers.append(await clients.enter_async_context(broker_of(client, names)))
        first, second = brokers
        await until(lambda: listeners(primary) == 2)
        await all_are_noticed(first, second, dropped, within=2)
        primary.kill()
        await until(lambda: b"role:master" in replica.command("INFO", "replication"))
        await until(lambda: listeners(replica) == 2, within=3)
        await until(lambda: {"up"} == {one.status().shared for one in brokers})
        await all_are_noticed(first, second, dropped, within=2)
    assert 0 == replica.command("PUBSUB", "NUMSUB", CHANNEL)[1]
