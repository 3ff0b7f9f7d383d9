"""The redis option: which values are refused at construction, and how the client of a URL behaves."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import RedisClusterException

from tests.looptime import LoopTime
from tests.proxies import Proxy
from tests.redis.clusters import needs_cluster_urls
from tests.redis.guarded_client import GuardedClient
from tests.servers import RedisServer
from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.redis.client import address_of, checked_redis, close_client, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tokenmw.redis.client import AnyClient

    Open = Callable[..., AnyClient]

PASSWORD = "pass-w0rd"


@pytest.fixture
async def opened() -> AsyncGenerator[Open]:
    """Open clients as a broker does; they are closed after the test."""
    made: list[AnyClient] = []

    def make(url: str, **limits: Any) -> AnyClient:
        client, ours = open_client(checked_redis(url), limits=Limits(**limits))
        assert ours
        made.append(client)
        return client

    yield make
    for client in made:
        await close_client(client)


@pytest.mark.parametrize(
    "url",
    [
        "",
        f":{PASSWORD}@host",
        f"http://:{PASSWORD}@host",
        f"redis:/:{PASSWORD}@host",
        f"redis://:{PASSWORD}@host:port/0",
        f"redis://:{PASSWORD}@host:99999",
        f"redis://:{PASSWORD}@host:/0",
        f"redis://:{PASSWORD}@host:0/0",
        f"rediss+cluster://:{PASSWORD}@host:",
        f"redis://:{PASSWORD}@host/first",
        f"redis://:{PASSWORD}@host/0/1",
        f"redis://:{PASSWORD}@[::1/0",
        f"redis://:{PASSWORD}@host?db=first",
        f"redis://:{PASSWORD}@host?protocol=4",
        f"redis://:{PASSWORD}@host?max_connections=-1",
        f"redis://:{PASSWORD}@host?timeout=5",
        f"redis://:{PASSWORD}@host?unheard_of=1",
        f"redis://:x?{PASSWORD}=1@host",
        f"redis://:x/{PASSWORD}@host",
        f"redis://:x#{PASSWORD}@host:port",
        f"redis://{PASSWORD}#@host",
        f"redis://:12?{PASSWORD}@host",
        f"redis://:{PASSWORD}@host?decode_responses=yes",
        f"unix://:{PASSWORD}@",
        f"redis+cluster://:{PASSWORD}@host/1",
        f"redis+cluster://:{PASSWORD}@host?db=1",
        f"redis+cluster://:{PASSWORD}@host?unheard_of=1",
        f"unix+cluster://:{PASSWORD}@/run/redis.sock",
    ],
)
def test_url_that_is_not_valid_is_refused_without_its_password(url: str) -> None:
    """It is refused at construction, and the error does not show the password, whatever part of the URL it is in."""
    with pytest.raises(ConfigurationError, match=r"^redis: ") as caught:
        checked_redis(url)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            "redis://:s3cret@host?unheard_of=1",
            'unknown option "unheard_of": remove it, or pass a client of redis.asyncio',
        ),
        ("rediss://host?ssl_ca_cert=/ca.pem", 'unknown option "ssl_ca_cert": did you mean "ssl_ca_certs"?'),
        ("unix:///run/redis.sock?data=1", 'unknown option "data"'),
        ("redis://host?timeout=5", '"timeout" is not used: Limits(command_seconds=…) bounds that'),
        ("redis://host?protocol=4", '"protocol" has a value that is not valid'),
        ("redis://host?socket_timeout=5&db=first", '"db" has a value that is not valid'),
        ("redis://host?max_connections=-1", '"max_connections" has a value that is not valid'),
        ("redis://host?db", '"db" has no value'),
        ("redis://host:6379/0#fragment", 'has a "#", which ends it'),
        ("redis://:s3cret#x@host", 'an unquoted "/", "?" or "#"'),
        ("redis://:s3cret/x@host", 'an unquoted "/", "?" or "#"'),
        ("redis://:s3cret?x@host", 'an unquoted "/", "?" or "#"'),
        ("redis://:1/s3cret@host", 'an unquoted "/", "?" or "#"'),
        ("redis://:1/s3cret@host:port", 'an unquoted "/", "?" or "#"'),
        ("redis://:1?hush=1", "the URL has a host, a port or an option after the ? that is not valid"),
        ("redis://host:port", "its host or its port is not valid"),
        ("redis://host/first", "the URL's path must be a database number"),
        pytest.param(
            "redis+cluster://host?unheard_of=1",
            'unknown option "unheard_of"',
            marks=needs_cluster_urls,
        ),
    ],
)
def test_error_of_a_url_says_what_to_change(url: str, text: str) -> None:
    """An option is named, unless it may be a part of the password."""
    with pytest.raises(ConfigurationError) as caught:
        checked_redis(url)
    assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:pa%3Fss@127.0.0.1:6379/15?socket_keepalive=yes",
        "rediss://127.0.0.1:6380/0?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=3",
        pytest.param("redis+cluster://127.0.0.1:7000", marks=needs_cluster_urls),
        pytest.param("rediss+cluster://127.0.0.1:7000/0", marks=needs_cluster_urls),
    ],
)
def test_valid_url_is_accepted(url: str) -> None:
    """Nothing is connected."""
    assert checked_redis(url) == url


def test_client_that_decodes_responses_is_refused() -> None:
    """Sealed values are bytes."""
    cluster = redis.asyncio.RedisCluster(host="127.0.0.1", decode_responses=True)
    for client in (redis.asyncio.Redis(decode_responses=True), cluster):
        with pytest.raises(ConfigurationError, match="decode_responses"):
            checked_redis(client)


async def test_client_of_the_user_is_used_and_not_closed(redis_server: RedisServer) -> None:
    """`open_client` returns the same client, and that it is not this package's to close."""
    async with redis.asyncio.Redis(port=redis_server.port) as mine:
        client, ours = open_client(checked_redis(mine), limits=Limits())
        assert client is mine
        assert not ours


@pytest.mark.parametrize("password", ["a+cluster://b", "p?a/s#s%w:o@rd", "ключ"])
async def test_password_and_database_of_the_url_are_used(opened: Open, password: str) -> None:
    """They are used over TCP and over a unix socket, whatever characters are in the password."""
    with RedisServer("--requirepass", password) as server:
        urls = [server.url.replace("/0", "/3"), server.unix_url.replace("db=0", "db=3")]
        for number, url in enumerate(urls):
            await opened(url).set(f"k{number}", "v")
        with server.connect() as connection:
            connection.call("SELECT", 3)
            assert connection.call("DBSIZE") == 2


async def test_no_command_is_sent_twice(opened: Open, redis_server: RedisServer) -> None:
    """A command whose reply breaks off fails: it is not retried, and no other connection is made for it."""
    async with Proxy(redis_server.port) as proxy:
        client = opened(proxy.url)
        await client.get("connected")
        proxy.cut_replies = True
        with pytest.raises(redis.asyncio.ConnectionError):
            await client.incr("count")
        assert proxy.accepted == 1
    assert redis_server.command("GET", "count") == b"1"


async def test_password_that_contains_cluster_is_used(opened: Open) -> None:
    """Only the scheme says that a URL is of a cluster."""
    with RedisServer("--requirepass", "my+cluster") as server:
        url = f"redis://:my+cluster@127.0.0.1:{server.port}"
        assert await opened(url).ping()


@needs_cluster_urls
async def test_cluster_runs_scripts_and_pipelines(opened: Open, cluster: RedisServer) -> None:
    """It also runs scripts that it does not know yet."""
    client = opened(f"redis+cluster://127.0.0.1:{cluster.port}")
    cluster.command("SCRIPT", "FLUSH")
    for expected in (0, b"id"):
        guard = GuardedClient(client, command_seconds=5.0).guard
        assert expected == await guard.evaluate("session", (b"n:v1:{a}:session",), ("id", 9_000))
    batch = client.pipeline(transaction=False)
    for key in ("n:v1:{a}:session", "n:v1:{b}:session"):
        batch.execute_command("GETEX", key, "PX", 9_000)
    assert await batch.execute(raise_on_error=False) == [b"id", None]


async def test_cancellation_of_a_command_is_never_lost(opened: Open, redis_server: RedisServer) -> None:
    """In whichever turn of the loop it comes, the task ends as cancelled; otherwise a broker could not close."""
    client = opened(redis_server.url)
    await client.get("connected")
    turns, done = 0, False
    while not done:
        task = asyncio.ensure_future(client.get("x"))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = not task.cancel()
        await asyncio.wait([task])
        assert done or task.cancelled(), f"a cancellation after {turns} turns was lost"
        turns += 1
    assert turns > 2


@pytest.mark.parametrize("scheme", ["redis", pytest.param("redis+cluster", marks=needs_cluster_urls)])
async def test_command_that_times_out_does_not_interrupt_connecting(
    opened: Open, redis_server: RedisServer, cluster: RedisServer, scheme: str
) -> None:
    """A later command uses the connection that the first one began, and gets its own reply."""
    server = cluster if "cluster" in scheme else redis_server
    server.command("SET", "a", "value of a")
    async with Proxy(server.port) as proxy:
        proxy.connect_delay = 0.5
        client = opened(f"{scheme}://127.0.0.1:{proxy.port}", connections=1)
        failures = 0
        async with LoopTime() as waited:
            while True:
                try:
                    async with asyncio.timeout(0.15):
                        assert await client.get("a") == b"value of a"
                    break
                except TimeoutError:
                    failures += 1
                    assert waited.seconds < 3
        assert failures >= 3
        assert proxy.accepted == 1
        await close_client(client)


@pytest.mark.parametrize("scheme", ["redis", "rediss", pytest.param("redis+cluster", marks=needs_cluster_urls)])
@pytest.mark.parametrize("hole", ["silent", "full"])
async def test_close_does_not_wait_for_a_server_that_does_not_respond(opened: Open, scheme: str, hole: str) -> None:
    """Whether the server sends nothing or accepts nothing, no socket and no task stay, and waiters get an error."""
    before = asyncio.all_tasks()
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if hole == "full" else 8)
        if hole == "full":
            filler.connect(listener.getsockname())
        client = opened(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        waiter = asyncio.create_task(GuardedClient(client, command_seconds=5.0).guard.evaluate("probe", (b"p",), ()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get("b")
        async with LoopTime() as waited:
            await close_client(client)
        assert waited.seconds < 0.1
        with pytest.raises((redis.ConnectionError, RedisClusterException)):
            await waiter
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before
        if hole == "silent":
            for _ in range(2 if scheme != "redis+cluster" else 1):
                accepted, _peer = listener.accept()
                with accepted:
                    accepted.settimeout(1)
                    assert await asyncio.to_thread(_is_closed, accepted)


def _is_closed(peer: socket.socket) -> bool:
    try:
        while peer.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://user:pass-w0rd@10.0.0.5:6380/1", "10.0.0.5:6380"),
        ("rediss://:pass-w0rd@redis.example", "redis.example:6379"),
        ("redis://:pass-w0rd@[::1]:6380", "[::1]:6380"),
        ("unix://user:pass-w0rd@/run/redis.sock?db=1", "/run/redis.sock"),
        ("unix://user:1/pass-w0rd@/run/redis.sock", "/run/redis.sock"),
        pytest.param("redis+cluster://:pass-w0rd@10.0.0.5:7000", "10.0.0.5:7000", marks=needs_cluster_urls),
    ],
)
def test_address_of_a_server_shows_no_credentials(url: str, address: str) -> None:
    """It is host and port, or the path of the socket, even if a password in the URL was not quoted."""
    client, _ours = open_client(checked_redis(url), limits=Limits())
    assert address_of(client) == address


def test_address_of_a_cluster_node_is_its_name() -> None:
    """Each node has an address of its own."""
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=7000)
    assert address_of(client, "10.0.0.6:7001") == "10.0.0.6:7001"


async def test_address_behind_a_sentinel_is_the_primary_that_it_named(redis_server: RedisServer) -> None:
    """Before a Sentinel was asked, the address is the name of the service."""
    sentinel_class: Any = redis.asyncio.Sentinel  # it has no types
    async with sentinel_class([("127.0.0.1", 1)]).master_for("bots") as client:
        assert address_of(client) == "Sentinel's bots"
        client.connection_pool.master_address = ("127.0.0.1", redis_server.port)
        assert address_of(client) == f"127.0.0.1:{redis_server.port}"


def test_a_sync_client_of_valkey_glide_is_refused_with_the_fix() -> None:
    """It would block the event loop."""
    glide: type[object] = type("GlideClient", (), {"__module__": "glide_sync.glide_client"})
    with pytest.raises(ConfigurationError, match=r"would block the event loop: pass a GlideClientConfiguration"):
        checked_redis(glide())
