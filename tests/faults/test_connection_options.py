"""Connections to Redis: TLS and its checks, ACL users, unix sockets, databases, and clients of the program."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import redis.asyncio as redis

from tests.faults.certificates import Certificates, certificates
from tests.ports import free_port
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SECRET = "a secret for the tests only"
LONG_LIMITS = Limits(command_seconds=2.0)


async def shared_id(redis: Any) -> tuple[str, str]:
    """Return the error or state of Redis, and the random session id that it has for a key."""
    options: Any = {"secret_key": SECRET, "session_ids": "random", "limits": LONG_LIMITS}
    async with TokenBroker({}, redis=redis, **options) as broker:
        session_id = await broker.session_id("k")
        return broker.status().shared_error or broker.status().shared, session_id


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificates of this test run."""
    return certificates(tmp_path_factory.mktemp("certificates"))


def tls_server(files: Certificates, name: str, *more: str, port: int) -> RedisServer:
    """Start a server that also accepts TLS, with client certificates. Skip the test if it was built without TLS."""
    options = ["--tls-port", str(port), "--tls-cert-file", files.certificate(name), "--tls-key-file", files.key(name)]
    try:
        return RedisServer(*options, "--tls-ca-cert-file", files.certificate("ca"), *more).start()
    except RuntimeError as error:
        if "tls" in str(error).lower():
            pytest.skip("The server was built without TLS")
        raise


@pytest.fixture(scope="module")
def tls_port(files: Certificates) -> Iterator[int]:
    """The TLS port of a server with a valid certificate."""
    port = free_port()
    server = tls_server(files, "server", port=port)
    yield port
    server.stop()


def tls_url(port: int, files: Certificates, *, ca: str = "ca", client: str | None = "client") -> str:
    """Return the URL of a server with the certificates of a client."""
    options = {"ssl_ca_certs": files.certificate(ca)}
    if client is not None:
        options |= {"ssl_certfile": files.certificate(client), "ssl_keyfile": files.key(client)}
    return f"rediss://127.0.0.1:{port}/0?{urlencode(options)}"


async def test_tls_with_a_ca_and_a_client_certificate(tls_port: int, files: Certificates) -> None:
    """Two brokers share an id over TLS."""
    url = tls_url(tls_port, files)
    first, second = await shared_id(url), await shared_id(url)
    assert "up" == first[0]
    assert first == second


@pytest.mark.parametrize(
    ("ca", "client", "text"),
    [
        ("stranger", "client", r"its certificate is not trusted: give its CA, in a URL as \?ssl_ca_certs="),
        ("ca", None, "(it closed the connection at the start|TLS failed): "),
    ],
)
async def test_failed_tls_verification_is_an_outage(
    tls_port: int, files: Certificates, caplog: pytest.LogCaptureFixture, *, ca: str, client: str | None, text: str
) -> None:
    """With an unknown CA, or without a client certificate, Redis is unavailable and the id is derived."""
    error, session_id = await shared_id(tls_url(tls_port, files, ca=ca, client=client))
    assert error in ("connection", "reset")  # what a refused client notices first differs
    assert "8" == session_id[14]  # the version of a derived UUID
    assert re.search(rf"\({error}, 127\.0\.0\.1:{tls_port}\): {text}", caplog.text)


async def test_plain_connection_to_a_tls_port_is_an_outage(tls_port: int, caplog: pytest.LogCaptureFixture) -> None:
    """The log line says that the scheme decides about TLS."""
    assert "reset" == (await shared_id(f"redis://127.0.0.1:{tls_port}/0"))[0]
    text = "it closed the connection at the start: rediss:// is for a port with TLS, redis:// for one without"
    assert f"(reset, 127.0.0.1:{tls_port}): {text}; serving from local caches" in caplog.text


async def test_tls_verifies_the_host_name(files: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate for another host is rejected, although the CA is trusted."""
    port = free_port()
    server = tls_server(files, "elsewhere", port=port)
    try:
        assert "connection" == (await shared_id(tls_url(port, files)))[0]
        assert f"(connection, 127.0.0.1:{port}): its certificate is for another host name: " in caplog.text
    finally:
        server.stop()


async def test_tls_to_a_cluster(files: Certificates) -> None:
    """All nodes are reached over TLS; a client without TLS gets the same id."""
    port = free_port()
    server = tls_server(files, "server", "--cluster-enabled", "yes", "--tls-cluster", "yes", port=port)
    try:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(10):
            while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        url = tls_url(port, files).replace("rediss://", "rediss+cluster://")
        ids = [await shared_id(address) for address in (url, f"redis+cluster://127.0.0.1:{server.port}")]
    finally:
        server.stop()
    assert [("up", ids[0][1])] * 2 == ids


async def test_an_acl_user_with_few_permissions(private_redis: RedisServer) -> None:
    """A user with access to the namespace only, and with permission for these commands only, is enough."""
    rules = "on >s%2Fe:same ~tokenmw:* +eval +evalsha +get +set +getex +del +pexpire +pttl +time +hello +select +ping"
    private_redis.command("ACL", "SETUSER", "tokenmw", *rules.replace("%2F", "/").split(), "+@scripting", "+exists")
    url = f"redis://tokenmw:s%2Fe%3Asame@127.0.0.1:{private_redis.port}/0"
    assert ("up", (await shared_id(private_redis.url))[1]) == await shared_id(url)


async def test_a_unix_socket_and_a_database_number(private_redis: RedisServer) -> None:
    """The socket leads to the same server; another database has other session ids."""
    over_tcp = await shared_id(private_redis.url)
    assert over_tcp == await shared_id(private_redis.unix_url)
    other = await shared_id(f"redis://127.0.0.1:{private_redis.port}/3")
    assert "up" == other[0]
    assert over_tcp[1] != other[1]
    assert b"keys=" in private_redis.command("INFO", "keyspace").split(b"db3:")[1]


async def test_a_client_of_the_program_is_never_closed(private_redis: RedisServer) -> None:
    """It stays connected after use and after an outage; a client made from a URL leaves no connection."""
    private_redis.command("CONFIG", "SET", "timeout", "0")
    async with redis.Redis.from_url(private_redis.url) as client:
        connection = await client.client_id()
        await shared_id(client)
        # A ping would not show it: the client reconnects for the next command.
        assert f"id={connection} ".encode() in private_redis.command("CLIENT", "LIST")
        private_redis.freeze()
        async with TokenBroker({}, redis=client, limits=Limits(connect_seconds=0.2), secret_key=SECRET) as broker:
            await broker.session_id("other")
        private_redis.thaw()
        assert await client.ping()  # pyright: ignore[reportUnknownMemberType]
    await shared_id(private_redis.url)
    async with asyncio.timeout(10):
        while b"connected_clients:1\r" not in private_redis.command("INFO", "clients"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
