"""A cluster of two primaries: an outage of one affects its own keys only, and it recovers by itself."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import until
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.observe.events import SharedStateChanged
from tokenmw.observe.state_events import RedisStateChanged
from tokenmw.redis.client import refresh_slots
from tokenmw.redis.connection import UNAVAILABLE
from tokenmw.redis.epoch import EpochMarkers
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenmw.observe.events import Event
    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]

pytestmark = needs_cluster_urls
OPTIONS = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "60000")
HALF = 8192


@pytest.fixture
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two primaries, each with half of the slots."""
    with RedisServer(*OPTIONS) as low, RedisServer(*OPTIONS) as high:
        low.command("CLUSTER", "ADDSLOTSRANGE", 0, HALF - 1)
        high.command("CLUSTER", "ADDSLOTSRANGE", HALF, 2 * HALF - 1)
        low.command("CLUSTER", "MEET", "127.0.0.1", high.port)
        deadline = time.monotonic() + 20
        while not all(_ready(one) for one in (low, high)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield low, high


def _ready(server: RedisServer) -> bool:
    info: bytes = server.command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_slots_ok:16384" in info


def keys_on(server: RedisServer, *, low: bool, count: int = 3) -> list[bytes]:
    """Find keys whose slot is in one half."""
    keys = (b"test:v1:{%d}:session" % number for number in range(1000))
    found = [key for key in keys if (server.command("CLUSTER", "KEYSLOT", key) < HALF) is low]
    return found[:count]


async def test_outage_of_one_primary_does_not_affect_the_other(
    connect: Connect, pair: tuple[RedisServer, RedisServer], events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """Its keys cost three deadlines and then nothing; keys of the other one are served; then the state is up again.

    Log lines and status are of that server only.
    """
    low, high = pair
    connection = connect(f"redis+cluster://127.0.0.1:{low.port}", command_seconds=0.4)
    assert await connection.open()
    mine, lost = keys_on(low, low=True), keys_on(low, low=False)
    for key in (*mine, *lost):
        assert await connection.run("session", (key,), ("id", 60_000)) == 0
    high.freeze()
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="timeout"):
            await connection.run("session", (lost[0],), ("id", 60_000))
        assert await connection.run("session", (mine[0],), ("id", 60_000)) == b"id"
    with pytest.raises(RedisUnavailable, match="open"):
        await connection.run("session", (lost[1],), ("id", 60_000))
    assert ("down", True, "timeout") == (connection.state, connection.usable, connection.error)
    states = {address: (state, error) for address, (state, _, error, _) in connection.servers.items()}
    assert {f"127.0.0.1:{low.port}": ("up", ""), f"127.0.0.1:{high.port}": ("down", "timeout")} == states
    commands = [("GETEX", key, "PX", 60_000) for key in (mine[0], lost[0], mine[1])]
    assert [b"id", UNAVAILABLE, b"id"] == await connection.pipeline(commands)
    with pytest.raises(RedisUnavailable, match="open"):
        await connection.pipeline(commands[1:2])
    high.thaw()
    await until(lambda: connection.state == "up", within=20)
    assert [b"id"] * 3 == await connection.pipeline(commands)
    assert [
        RedisStateChanged(f"127.0.0.1:{high.port}", up=False, error="timeout"),
        SharedStateChanged(up=False, error="timeout"),
        RedisStateChanged(f"127.0.0.1:{high.port}", up=True),
        SharedStateChanged(up=True),
    ] == events
    assert {"up"} == {state for state, *_ in connection.servers.values()}
    assert {f"redis:127.0.0.1:{high.port}"} == {getattr(record, "tokenmw.kind") for record in caplog.records}
    down, up = (record.message for record in caplog.records)
    assert f"tokenmw: Redis unavailable (timeout, 127.0.0.1:{high.port}); serving from local caches" == down
    assert up.startswith(f"tokenmw: Redis recovered (127.0.0.1:{high.port}) after ")


async def test_outages_of_two_primaries_have_lines_of_their_own(
    connect: Connect, pair: tuple[RedisServer, RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """All primaries shared one kind of line: that of the second one was only counted, and its recovery not logged."""
    low, high = pair
    connection = connect(f"redis+cluster://127.0.0.1:{low.port}", command_seconds=0.4)
    assert await connection.open()
    for server in (high, low):
        key = keys_on(low, low=server is low)[0]
        assert await connection.run("session", (key,), ("id", 60_000)) == 0
    keys = {server: keys_on(low, low=server is low)[0] for server in pair}
    for server in pair:
        server.freeze()
    for key in (*keys.values(),) * 3:
        with pytest.raises(RedisUnavailable, match="timeout"):
            await connection.run("session", (key,), ("id", 60_000))
    for server in pair:
        server.thaw()
    await until(lambda: connection.state == "up", within=20)
    for server in pair:
        messages = [one.message for one in caplog.records if getattr(one, "tokenmw.kind").endswith(f":{server.port}")]
        assert [f"tokenmw: Redis {word} (" for word in ("unavailable", "recovered")] == [
            message.partition("(")[0] + "(" for message in messages
        ]


async def test_primaries_that_left_the_cluster_are_forgotten(
    connect: Connect, pair: tuple[RedisServer, RedisServer]
) -> None:
    """The status kept each node that had ever been a primary, and so did the state of the connection."""
    low, high = pair
    connection = connect(f"redis+cluster://127.0.0.1:{low.port}", command_seconds=2.0)
    assert await connection.open()
    for key in (mine := keys_on(low, low=True)[0], moved := keys_on(low, low=False)[0]):
        await connection.run("session", (key,), ("id", 60_000))
    assert {f"127.0.0.1:{one.port}" for one in pair} == set(connection.servers)
    high.command("FLUSHALL")  # a node keeps the slots of its keys
    ids = [one.command("CLUSTER", "MYID") for one in pair]
    with low.connect() as one, high.connect() as two:
        for slot in range(HALF, 2 * HALF):
            one.call("CLUSTER", "SETSLOT", slot, "NODE", ids[0])
            two.call("CLUSTER", "SETSLOT", slot, "NODE", ids[0])
    low.command("CLUSTER", "FORGET", ids[1])
    await refresh_slots(connection.client)
    assert [f"127.0.0.1:{low.port}"] == list(connection.servers)
    await connection.check_servers()
    assert 2 == len(connection._servers)  # the nameless one, of the time before the slots were known
    for key in (mine, moved):
        await connection.run("session", (key,), ("id", 60_000))
    assert [f"127.0.0.1:{low.port}"] == list(connection.servers)


async def test_only_the_primary_that_a_sentinel_named_last_is_shown(connect: Connect) -> None:
    """Former primaries have no row of their own."""
    sentinel: Any = Sentinel
    client = sentinel([("127.0.0.1", 1)]).master_for("mine")
    connection, pool = connect(client), client.connection_pool
    for address in (("10.0.0.1", 6379), ("10.0.0.2", 6379)):
        pool.master_address = address
        assert [f"{address[0]}:6379"] == list(connection.servers)


async def test_a_failed_primary_is_forgotten_when_its_recovery_was_reported(
    connect: Connect, pair: tuple[RedisServer, RedisServer], events: list[Event]
) -> None:
    """Another primary has its slots by then, and answers the probe."""
    low, high = pair
    connection = connect(f"redis+cluster://127.0.0.1:{low.port}", command_seconds=0.4)
    assert await connection.open()
    lost = keys_on(low, low=False)[0]
    await connection.run("session", (lost,), ("id", 60_000))
    high.freeze()
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="timeout"):
            await connection.run("session", (lost,), ("id", 60_000))
    node = low.command("CLUSTER", "MYID")
    with low.connect() as one:
        for slot in range(HALF, 2 * HALF):
            one.call("CLUSTER", "SETSLOT", slot, "NODE", node)
    await connection.check_servers()
    assert f"127.0.0.1:{high.port}" in connection.servers
    await until(lambda: connection.state == "up", within=60)  # about 10 s: the client has to notice the new slots
    await connection.check_servers()
    assert [f"127.0.0.1:{low.port}"] == [*connection.servers]
    assert [
        RedisStateChanged(f"127.0.0.1:{high.port}", up=False, error="timeout"),
        SharedStateChanged(up=False, error="timeout"),
        RedisStateChanged(f"127.0.0.1:{high.port}", up=True),
        SharedStateChanged(up=True),
    ] == events


async def test_each_primary_has_an_epoch_marker(connect: Connect, pair: tuple[RedisServer, RedisServer]) -> None:
    """A flush of one of them is noticed."""
    low, high = pair
    connection = connect(f"redis+cluster://127.0.0.1:{low.port}", command_seconds=2.0)
    assert await connection.open()
    markers = EpochMarkers()
    assert await markers.changed(connection, announces=True)
    assert [1, 1] == [sum(b":marker" in key for key in one.command("KEYS", "*")) for one in pair]
    assert not await markers.changed(connection, announces=True)
    high.command("FLUSHALL")
    assert await markers.changed(connection, announces=True)


async def test_scripts_for_many_keys_reach_servers_that_do_not_know_them(
    connect: Connect, pair: tuple[RedisServer, RedisServer]
) -> None:
    """So it is at first use and after SCRIPT FLUSH, in whatever order the servers of the keys are."""
    low, high = pair
    connection = connect(f"redis+cluster://127.0.0.1:{low.port}", command_seconds=2.0)
    assert await connection.open()
    keys = [key for two in zip(keys_on(low, low=True), keys_on(low, low=False), strict=True) for key in two]
    for expected in ([0] * len(keys), [b"id of " + key for key in keys]):
        calls = [(key, (b"id of " + key, 60_000)) for key in keys]
        assert expected == await connection.run_for_each("session", calls)
        high.command("SCRIPT", "FLUSH")


async def test_a_reset_outlasts_its_session_on_each_server(pair: tuple[RedisServer, RedisServer]) -> None:
    """A session and what is kept of its reset are in one slot, so that one script may use both."""
    options: dict[str, Any] = {"secret_key": "a-secret-of-some-length", "limits": Limits(command_seconds=5.0)}
    url = f"redis+cluster://127.0.0.1:{pair[0].port}"
    keys = [f"key-{number}" for number in range(20)]
    async with TokenBroker({}, redis=url, **options) as one:
        before = [await one.session_id(key) for key in keys]
        ids = before[:10] + [await one.reset_session(key) for key in keys[10:]]
        kept = [len(server.command("KEYS", "*:reset")) for server in pair]
        assert (10, True) == (sum(kept), all(kept))
    for server in pair:
        for key in server.command("KEYS", "*:session"):
            server.command("DEL", key)
    async with TokenBroker({}, redis=url, **options) as two, TokenBroker({}, redis=url, **options) as three:
        assert ids == list(await asyncio.gather(*(two.session_id(key) for key in keys)))
        assert ids == [await three.session_id(key) for key in keys]
    assert 10 == len(set(before) & set(ids))


async def test_client_of_the_user_is_used_and_not_closed(cluster: RedisServer) -> None:
    """It shares ids with a client that is made from a URL, and its connections stay open."""

    async def shared(given: Any) -> tuple[str, str]:
        async with TokenBroker({}, redis=given, namespace="ready", limits=Limits(command_seconds=2.0)) as broker:
            return await broker.session_id("k"), broker.status().shared

    async with redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.port) as client:
        node: Any = client.get_default_node()
        connection = await client.client_id(target_nodes=node)
        seen = [await shared(given) for given in (client, f"redis+cluster://127.0.0.1:{cluster.port}", client)]
        assert f"id={connection} ".encode() in cluster.command("CLIENT", "LIST")
    assert [(seen[0][0], "up")] * 3 == seen


@pytest.mark.parametrize("text", ["127.0.0.1:1,127.0.0.1:{port}", "127.0.0.1:{port}, 127.0.0.1:1,localhost:1"])
async def test_url_may_have_several_nodes(connect: Connect, cluster: RedisServer, text: str) -> None:
    """While one of them is unavailable, the others are asked for the slots."""
    for _ in range(4):  # redis-py asks them in random order
        connection = connect(f"redis+cluster://{text.format(port=cluster.port)}", command_seconds=2.0)
        assert await connection.open()
        assert [f"127.0.0.1:{cluster.port}"] == list(connection.servers)


async def test_user_and_options_of_a_url_are_for_all_nodes(connect: Connect) -> None:
    """A comma in the password is part of it."""
    connection = connect("redis+cluster://u:a,b@one.example:7000,two.example,[::1]:7002/0?health_check_interval=7")
    client: Any = connection._client
    nodes = client.nodes_manager.startup_nodes
    assert {"one.example:7000", "two.example:6379", "::1:7002"} == set(nodes)
    for node in nodes.values():
        made = node.acquire_connection()
        assert ("u", "a,b", 7) == (made.username, made.password, made.health_check_interval)
