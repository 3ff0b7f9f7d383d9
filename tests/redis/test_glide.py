"""Clients of valkey-glide as `redis=`: what is accepted, which of it is used, and the reasons of failures."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.proxies import Proxy
from tests.redis.glides import configuration, glide
from tests.redis.waiting import reason_of, until
from tests.servers import RedisServer
from tokenmw import ConfigurationError, Limits, TokenBroker
from tokenmw.redis.client import address_of, checked_redis
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.errors import classify
from tokenmw.redis.glide.adapter import GlideAdapter
from tokenmw.redis.glide.errors import redis_error
from tokenmw.redis.glide.given import private_configuration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    Connect = Callable[..., RedisConnection]

pytestmark = pytest.mark.sdk
SECRET = "a-secret-of-some-length"
LIMITS = Limits()


@pytest.fixture
async def adapter(redis_server: RedisServer) -> AsyncGenerator[GlideAdapter]:
    """A client of the server."""
    made = GlideAdapter(configuration(redis_server.port), limits=LIMITS)
    yield made
    await made.aclose()


async def test_a_client_is_used_by_its_configuration_and_stays_open(redis_server: RedisServer) -> None:
    """The broker opens and closes a connection of its own; the program's client is not used for commands."""
    client = await glide().GlideClient.create(configuration(redis_server.port, client_name="program"))
    try:
        async with TokenBroker({}, redis=client, secret_key=SECRET) as broker:
            assert "up" == broker.status().shared
            assert await broker.session_id("sk-1")
        assert b"PONG" == await client.ping()
    finally:
        await client.close()


async def test_a_broker_is_made_of_a_configuration_before_an_event_loop_runs(redis_server: RedisServer) -> None:
    """So it can be made where an application is: creating a client needs a running loop. It outlives several loops."""
    broker = TokenBroker({}, redis=configuration(redis_server.port), secret_key=SECRET)

    async def run() -> str:
        async with broker:
            assert "up" == broker.status().shared
            return await broker.session_id("sk-1")

    first = await asyncio.to_thread(asyncio.run, run())
    assert first == await asyncio.to_thread(asyncio.run, run())
    assert first == await run()


def test_a_cluster_client_is_refused_with_the_reason() -> None:
    """One circuit for all nodes would break a promise, so the URL is what is advised."""
    module = glide()
    given = module.GlideClusterClientConfiguration([module.NodeAddress("127.0.0.1", 7000)])
    with pytest.raises(ConfigurationError, match=r"does not tell which node has a key.*redis\+cluster://"):
        checked_redis(given)


@pytest.mark.parametrize("other", ["NodeAddress", "Batch", "GlideClient"])
def test_other_objects_of_valkey_glide_are_no_clients(other: str) -> None:
    """They are refused as any other object is, and so is a class in place of a client."""
    module = glide()
    made = {
        "NodeAddress": lambda: module.NodeAddress("127.0.0.1", 1),
        "Batch": lambda: module.Batch(is_atomic=False),
        "GlideClient": lambda: module.GlideClient,
    }[other]()
    with pytest.raises(ConfigurationError, match="redis must be a URL"):
        checked_redis(made)


def test_what_would_falsify_replies_is_left_out() -> None:
    """Replicas and caches are late, compressed values cannot be compared, and messages are the program's."""
    module = glide()
    given = module.GlideClientConfiguration(
        [module.NodeAddress("127.0.0.1", 1)],
        read_from=module.ReadFrom.PREFER_REPLICA,
        compression=module.CompressionConfiguration(enabled=True),
        client_circuit_breaker=module.ClientCircuitBreakerConfiguration(),
        pubsub_subscriptions=module.GlideClientConfiguration.PubSubSubscriptions({}, None, None),
    )
    made = private_configuration(given, limits=LIMITS)
    assert module.ReadFrom.PRIMARY == made.read_from
    assert made.lazy_connect
    assert made.compression is made.client_circuit_breaker is made.pubsub_subscriptions is None
    assert 3_000 == made.advanced_config.connection_timeout
    assert module.ReadFrom.PREFER_REPLICA == given.read_from
    assert given.compression.enabled
    assert given.advanced_config is None


def test_the_program_bounds_connecting_if_it_wants_to() -> None:
    """Its own bound is kept, and its object is not changed."""
    module = glide()
    advanced = module.AdvancedGlideClientConfiguration(connection_timeout=700)
    made = private_configuration(configuration(1, advanced_config=advanced), limits=LIMITS)
    assert 700 == made.advanced_config.connection_timeout


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([("10.0.0.5", 6380)], "10.0.0.5:6380"),
        ([("::1", 6379), ("b", 1)], "[::1]:6379,b:1"),
    ],
)
def test_the_address_shows_no_credentials(addresses: list[tuple[str, int]], expected: str) -> None:
    """It is that of the server, or those of the primary and its replicas."""
    module = glide()
    nodes = [module.NodeAddress(*one) for one in addresses]
    credentials = module.ServerCredentials("pass-w0rd")
    given = module.GlideClientConfiguration(nodes, credentials=credentials)
    adapter = GlideAdapter(given, limits=LIMITS)
    assert expected == address_of(adapter)
    assert "pass-w0rd" not in repr(adapter) + str(vars(type(adapter)))


async def test_replies_are_those_of_redis_py(adapter: GlideAdapter) -> None:
    """Bytes, numbers, None, and errors in their places, also inside of a script's reply."""
    script = "return {1, false, {KEYS[1], ARGV[1]}, redis.pcall('LPUSH', KEYS[1], '1'), ''}"
    replies = await adapter.send(
        [
            ("SET", "a", b"\x00\xff", "PX", 10_000, "NX"),
            ("GET", b"a"),
            ("GET", "absent"),
            ("LPUSH", "a", "x"),
            ("EVAL", script, 1, "a", b"\xff"),
            ("SET", "empty", b""),
            ("GETRANGE", "empty", 0, 12),
        ]
    )
    assert b"\x00\xff" == replies[1]
    assert replies[2] is None
    assert "response" == classify(replies[3])
    assert [1, None, [b"a", b"\xff"]] == replies[4][:3]
    assert "response" == classify(replies[4][3])
    assert b"" == replies[4][4] == replies[6]


_DENY_GETEX = ("ACL", "SETUSER", "default", "-getex")
FAILURES: list[tuple[str, list[tuple[Any, ...]], tuple[Any, ...], str]] = [
    ("full", [("CONFIG", "SET", "maxmemory", 1)], ("SET", "x", 1), "full"),
    ("full, in a script", [("CONFIG", "SET", "maxmemory", 1)], ("EVAL", "return redis.call('SET','x',1)", 0), "full"),
    ("a replica", [("REPLICAOF", "127.0.0.1", 1)], ("SET", "x", 1), "readonly"),
    ("no replicas", [("CONFIG", "SET", "min-replicas-to-write", 1)], ("SET", "x", 1), "replicas"),
    ("ACL", [_DENY_GETEX], ("GETEX", "x"), "permission"),
    ("ACL, in a script", [_DENY_GETEX], ("EVAL", "return redis.call('GETEX','x')", 0), "permission"),
    ("ACL, keys", [("ACL", "SETUSER", "default", "resetkeys", "~z*")], ("GET", "x"), "permission"),
    ("no script", [], ("EVALSHA", "0" * 40, 0), "response"),
    ("another type", [("SADD", "x", 1)], ("GET", "x"), "response"),
    ("unknown", [], ("NOSUCH", "x"), "unsupported"),
    ("disk", [], ("EVAL", "return redis.error_reply('MISCONF Redis is')", 0), "disk"),
    ("no database", [], ("SELECT", 99), "database"),
]


@pytest.mark.parametrize(("before", "command", "expected"), [row[1:] for row in FAILURES], ids=[r[0] for r in FAILURES])
async def test_an_error_reply_has_the_reason_that_redis_py_has(
    before: list[tuple[Any, ...]], command: tuple[Any, ...], expected: str
) -> None:
    """Logs, events and status name the same reason, whichever client is used."""
    with RedisServer() as server:
        adapter = GlideAdapter(configuration(server.port), limits=LIMITS)
        await adapter.execute_command("GET", "connects")
        for words in before:
            server.command(*words)
        (reply,) = await adapter.send([command])
        await adapter.aclose()
    assert isinstance(reply, Exception)
    assert expected == classify(reply)


async def _unavailable(port: int, **options: Any) -> str:
    adapter = GlideAdapter(configuration(port, **options), limits=Limits(connect_seconds=1.0))
    try:
        with pytest.raises(Exception, match=".") as caught:
            await adapter.execute_command("GET", "a")
    finally:
        await adapter.aclose()
    return classify(caught.value)


async def test_a_connection_that_cannot_be_made_has_a_reason() -> None:
    """Glide tells what a server has refused; a port or a host that is not there is a timeout."""
    module = glide()
    with RedisServer("--requirepass", "sesame") as server:
        assert "auth" == await _unavailable(server.port)
        assert "auth" == await _unavailable(server.port, credentials=module.ServerCredentials("wrong"))
    with RedisServer() as server:
        server.command("REPLICAOF", "127.0.0.1", 1)
        assert "readonly" == await _unavailable(server.port)
    assert "timeout" == await _unavailable(1)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("RequestError", "Reached maximum inflight requests", "busy"),
        ("RequestError", "An error was signalled by the server: - BusyLoadingError: Redis is loading", "loading"),
        ("RequestError", "An error was signalled by the server: - Moved: 1 10.0.0.5:6379", "cluster"),
        ("RequestError", "An error was signalled by the server: - ClusterDown: The cluster is down", "cluster"),
        ("RequestError", "BUSY: Redis is busy running a script.", "script"),
        ("RequestError", "Standalone connect failed - IoError: something new", "connection"),
        ("TimeoutError", "timed out", "timeout"),
        ("ConnectionError", "broken pipe", "reset"),
        ("ClosingError", "", "timeout"),
        ("ConfigurationError", "", "error"),
        ("GlideError", "", "error"),
    ],
)
def test_an_error_that_is_hard_to_cause_has_a_reason(kind: str, text: str, expected: str) -> None:
    """So does one of a class that this package does not know."""
    glide()
    error: Exception = getattr(import_module("glide_shared.exceptions"), kind)(text)
    assert expected == classify(redis_error(error))


def test_an_error_of_the_program_s_own_code_stays_what_it_is() -> None:
    """Credentials of the program's own may raise anything, which is logged with its place."""
    error = KeyError("x")
    assert error is redis_error(error)
    assert "client" == classify(error)


async def test_all_scripts_are_loaded_after_they_were_flushed(adapter: GlideAdapter, redis_server: RedisServer) -> None:
    """If a server knew some of a batch's scripts only, the batch would not be run in its order."""
    await adapter.execute_command("GET", "a")
    redis_server.command("SCRIPT", "FLUSH")
    (reply,) = await adapter.send([("EVALSHA", "0" * 40, 0)])
    assert isinstance(reply, Exception)
    await adapter.execute_command("GET", "a")
    assert b"number_of_cached_scripts:12" in redis_server.command("INFO", "memory")


async def test_a_slow_handshake_is_not_cut_short_by_a_deadline(redis_server: RedisServer) -> None:
    """A command gives up, Glide goes on connecting, and a later one uses the connection."""
    async with Proxy(redis_server.port) as proxy:
        proxy.connect_delay = 0.5
        adapter = GlideAdapter(configuration(proxy.port), limits=LIMITS)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await adapter.execute_command("GET", "a")
        await asyncio.sleep(0.7)
        async with asyncio.timeout(0.3):
            await adapter.execute_command("GET", "a")
        assert 1 == proxy.accepted
        await adapter.aclose()


async def test_a_connection_without_a_peer_is_replaced(connect: Connect, redis_server: RedisServer) -> None:
    """Glide would keep it until TCP gives up, which takes minutes. The first probe makes another one."""
    async with LostProxy(redis_server.port) as proxy:
        connection = connect(configuration(proxy.port), command_seconds=0.1)
        assert await connection.open()
        proxy.lose()
        for _ in range(3):
            assert "timeout" == await reason_of(connection.run("read", (b"a",), ()))
        assert "down" == connection.state
        await until(lambda: connection.state == "up", within=3)
        assert 2 == proxy.accepted
        await connection.close()


class LostProxy(Proxy):
    """Forgets its open connections, as a firewall does, or the address of a machine that has failed."""

    def lose(self) -> None:
        """Drop what open connections send from now on; new ones are not changed."""
        self._half_closed |= self._clients  # without closing them


async def test_nothing_is_left_over(redis_server: RedisServer) -> None:
    """After brokers were closed, in an outage or not, there are as many threads, files and connections as before."""

    async def once() -> None:
        async with TokenBroker({}, redis=configuration(redis_server.port), secret_key=SECRET) as broker:
            await broker.session_id("sk-1")

    async def unavailable() -> None:
        async with TokenBroker({}, redis=configuration(1), secret_key=SECRET, limits=Limits(connect_seconds=0.2)):
            await asyncio.sleep(0.5)

    await once()  # the library has a thread and a pipe for the whole process
    await asyncio.sleep(0.2)
    before = _used(redis_server)
    for _ in range(5):
        await once()
    await unavailable()
    await until(lambda: _used(redis_server) <= before, within=5)


def _used(server: RedisServer) -> tuple[int, int, int]:
    process = Path("/proc/self")
    if not process.exists():
        pytest.skip("there is no /proc")
    clients = server.command("CLIENT", "LIST").count(b"\n")
    return len(os.listdir(process / "fd")), len(os.listdir(process / "task")), clients
