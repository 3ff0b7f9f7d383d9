"""The ways to a Redis: TLS with its checks, users, unix sockets, databases, and clients that are not ours."""

from __future__ import annotations

import asyncio
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
PATIENT = Limits(command_seconds=2.0)


async def shared_id(way: Any) -> tuple[str, str]:
    """Return the state, and the session id of a key."""
    async with TokenBroker({}, redis=way, secret_key=SECRET, limits=PATIENT) as broker:
        session_id = await broker.session_id("k")
        return broker.status().shared_error or broker.status().shared, session_id


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of this run."""
    return certificates(tmp_path_factory.mktemp("certificates"))


def tls_server(papers: Certificates, name: str, *more: str, port: int) -> RedisServer:
    """Make a server that speaks TLS too, and wants a certificate of its clients there; skip if it cannot."""
    options = ["--tls-port", str(port), "--tls-cert-file", papers.certificate(name), "--tls-key-file", papers.key(name)]
    try:
        return RedisServer(*options, "--tls-ca-cert-file", papers.certificate("ca"), *more).start()
    except RuntimeError as error:
        if "tls" in str(error).lower():
            pytest.skip("This server was built without TLS.")
        raise


@pytest.fixture(scope="module")
def tls_port(papers: Certificates) -> Iterator[int]:
    """The port of a server with a good certificate."""
    port = free_port()
    server = tls_server(papers, "server", port=port)
    yield port
    server.stop()


def tls_url(port: int, papers: Certificates, *, ca: str = "ca", client: str | None = "client") -> str:
    """Return the URL with what a client brings along."""
    options = {"ssl_ca_certs": papers.certificate(ca)}
    if client is not None:
        options |= {"ssl_certfile": papers.certificate(client), "ssl_keyfile": papers.key(client)}
    return f"rediss://127.0.0.1:{port}/0?{urlencode(options)}"


async def test_tls_with_ca_and_client_certificate(tls_port: int, papers: Certificates) -> None:
    """Two brokers share an id over it."""
    url = tls_url(tls_port, papers)
    first, second = await shared_id(url), await shared_id(url)
    assert "up" == first[0]
    assert first == second


@pytest.mark.parametrize(("ca", "client"), [("stranger", "client"), ("ca", None)])
async def test_tls_without_trust_is_an_outage(tls_port: int, papers: Certificates, ca: str, client: str | None) -> None:
    """Neither a server of an unknown CA, nor without the client certificate it wants; requests go on."""
    word, session_id = await shared_id(tls_url(tls_port, papers, ca=ca, client=client))
    assert "connection" == word
    assert "8" == session_id[14]  # a derived one


async def test_tls_checks_the_name_of_the_host(papers: Certificates) -> None:
    """A certificate of our CA for another host is not taken."""
    port = free_port()
    server = tls_server(papers, "elsewhere", port=port)
    try:
        assert "connection" == (await shared_id(tls_url(port, papers)))[0]
    finally:
        server.stop()


async def test_tls_to_a_cluster(papers: Certificates) -> None:
    """To its nodes as to the one of the URL; who comes without TLS has the same id."""
    port = free_port()
    server = tls_server(papers, "server", "--cluster-enabled", "yes", "--tls-cluster", "yes", port=port)
    try:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(10):
            while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        url = tls_url(port, papers).replace("rediss://", "rediss+cluster://")
        ids = [await shared_id(way) for way in (url, f"redis+cluster://127.0.0.1:{server.port}")]
    finally:
        server.stop()
    assert [("up", ids[0][1])] * 2 == ids


async def test_an_acl_user_needs_no_more_than_this(private_redis: RedisServer) -> None:
    """A user who may touch our namespace alone, with the scripts and three commands, is enough."""
    rules = "on >s%2Fe:same ~tokenmw:* +eval +evalsha +get +set +getex +del +pexpire +pttl +time +hello +select +ping"
    private_redis.command("ACL", "SETUSER", "tokenmw", *rules.replace("%2F", "/").split(), "+@scripting", "+exists")
    url = f"redis://tokenmw:s%2Fe%3Asame@127.0.0.1:{private_redis.port}/0"
    assert ("up", (await shared_id(private_redis.url))[1]) == await shared_id(url)


async def test_a_unix_socket_and_a_database_number(private_redis: RedisServer) -> None:
    """The same server by its socket; another database is another world."""
    over_tcp = await shared_id(private_redis.url)
    assert over_tcp == await shared_id(private_redis.unix_url)
    elsewhere = await shared_id(f"redis://127.0.0.1:{private_redis.port}/3")
    assert "up" == elsewhere[0]
    assert over_tcp[1] != elsewhere[1]
    assert b"keys=" in private_redis.command("INFO", "keyspace").split(b"db3:")[1]


async def test_a_ready_client_is_never_closed(private_redis: RedisServer) -> None:
    """Neither after use nor after an outage; one that is made from a URL leaves no connection."""
    private_redis.command("CONFIG", "SET", "timeout", "0")
    async with redis.Redis.from_url(private_redis.url) as client:
        connection = await client.client_id()
        await shared_id(client)
        # It would be made anew for the next command, so a ping would not tell.
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
