"""Servers that answer, but with which nothing can be shared: each has a state, and a log line with the fix."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from tests.redis.clusters import needs_cluster_urls
from tests.redis.refusing_proxy import RefusingProxy
from tests.redis.waiting import get, reason_of, until
from tests.servers import RedisServer, find_server, wheel_server
from tokenmw import Limits, TokenBroker
from tokenmw.redis.acl import ACL_RULES
from tokenmw.status import ServerStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.proxies import Proxy
    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]

NEEDED = "tokenmw needs Redis 6.2 or newer, or Valkey, with EVAL, EVALSHA and SCRIPT"
UNKNOWN = b"-ERR unknown command '%s', with args beginning with: 'a-key' 'a-value' \r\n"
SERVERS: list[Path] = sorted({one for one in (find_server(), wheel_server()) if one is not None})
SESSION: Any = ("session", (b"s",), ("id", 1_000))


@pytest.fixture(params=SERVERS, ids=lambda path: path.name)
def executable(request: pytest.FixtureRequest) -> Path:
    """Each kind of server that this machine has."""
    path: Path = request.param
    return path


def line(caplog: pytest.LogCaptureFixture, reason: str) -> str:
    """Return the one log line of Redis, without the server's address, which it must have."""
    (record,) = [one for one in caplog.records if getattr(one, "tokenmw.kind", "") == "redis"]
    server = getattr(record, "tokenmw.server")
    assert getattr(record, "tokenmw.reason") == reason
    assert server.partition(":")[2].isdecimal()
    begin, end = f"tokenmw: Redis unavailable ({reason}, {server}): ", "; serving from local caches"
    assert record.message.startswith(begin)
    assert record.message.endswith(end)
    return record.message.removeprefix(begin).removesuffix(end)


@pytest.mark.parametrize("renamed", [("EVALSHA",), ("EVAL", "EVALSHA", "SCRIPT")])
async def test_server_with_renamed_commands_is_unsupported(
    connect: Connect, caplog: pytest.LogCaptureFixture, executable: Path, renamed: tuple[str, ...]
) -> None:
    """The state was `up`, the log empty, and nothing was shared."""
    options = [word for name in renamed for word in ("--rename-command", name, "")]
    with RedisServer(*options, executable=executable) as server:
        connection = connect(server.url, command_seconds=2.0)
        assert not await connection.open()
        assert (connection.state, connection.error) == ("unsupported", "unsupported")
        assert await reason_of(connection.run(*SESSION)) == "open"
    assert line(caplog, "unsupported").startswith(f"it does not know the command EVALSHA; {NEEDED}")


async def test_server_without_eval_works(connect: Connect, executable: Path) -> None:
    """The scripts are loaded by each connection, and run by their digests."""
    with RedisServer("--rename-command", "EVAL", "", executable=executable) as server:
        connection = connect(server.url, command_seconds=2.0)
        assert await connection.open()
        assert await connection.run(*SESSION) == 0  # stored
        assert connection.state == "up"


@pytest.mark.parametrize("refused", [("EVAL", "EVALSHA", "SCRIPT"), ("HELLO",)])
async def test_proxy_without_scripts_is_unsupported_until_it_has_them(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, refused: tuple[str, ...]
) -> None:
    """Its error repeats keys and values, which are not logged. Once the proxy is left out, Redis is used."""
    answers = {name: UNKNOWN % name.encode() for name in refused}
    async with RefusingProxy(redis_server.port, answers) as proxy:
        connection = connect(proxy.url, command_seconds=2.0)
        assert not await connection.open()
        assert connection.state == "unsupported"
        assert "a-key" not in caplog.text
        assert "a-value" not in caplog.text
        assert line(caplog, "unsupported").startswith("it does not know the command ")
        proxy.answers = {}
        await until(lambda: connection.state == "up", within=20)
        assert await connection.run(*SESSION) == 0  # stored


@pytest.mark.parametrize("answer", [b"-ERR invalid request\r\n", b"+OK\r\n", b"*0\r\n", b"$-1\r\n", b":1\r\n"])
async def test_proxy_that_answers_scripts_with_anything_else_is_unsupported(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    """Whatever it has against the probe, it has against all scripts."""
    async with RefusingProxy(redis_server.port, {"EVALSHA": answer}) as proxy:
        connection = connect(proxy.url, command_seconds=2.0)
        assert not await connection.open()
        assert connection.state == "unsupported"
    assert line(caplog, "unsupported") == f"it does not run scripts as Redis does; {NEEDED}"


async def test_old_version_is_unsupported(
    connect: Connect, caplog: pytest.LogCaptureFixture, private_redis: RedisServer
) -> None:
    """Its scripts run, but not all commands that are needed."""
    info = private_redis.command("INFO", "server")
    version = info.split(b"redis_version:")[1].split(b"\r")[0]
    old = b"6.0" + b".9999999"[: len(version) - 3]
    async with RefusingProxy(private_redis.port, {}, replaced=(version, old)) as proxy:
        connection = connect(proxy.url, command_seconds=2.0)
        assert not await connection.open()
        assert connection.state == "unsupported"
    assert line(caplog, "unsupported") == f"it is version {old.decode()}; {NEEDED}"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("-evalsha", "evalsha (@scripting)"),
        ("-@scripting", "evalsha (@scripting)"),
        ("-set", "set (@write)"),
        ("-pexpire -time", "pexpire (@write), time (@fast)"),
        ("resetkeys ~other:*", "the keys of the namespace"),
    ],
)
async def test_missing_permission_is_named(
    connect: Connect, executable: Path, caplog: pytest.LogCaptureFixture, rules: str, expected: str
) -> None:
    """All commands that the user lacks are found at the start, and not when each is first needed."""
    with RedisServer(executable=executable) as server:
        server.command("ACL", "SETUSER", "lean", "on", ">lean", "~*", "+@all", *rules.split())
        connection = connect(server.url.replace("//", "//lean:lean@"), command_seconds=2.0)
        assert not await connection.open()
        assert (connection.state, connection.error) == ("down", "permission")
        assert line(caplog, "permission") == f"its ACL does not allow {expected}: ACL SETUSER <user> {ACL_RULES}"
        server.command("ACL", "SETUSER", "lean", "~*", "+@all")
        await until(lambda: connection.state == "up", within=20)


async def test_repeated_error_of_single_commands_is_logged(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no outage, but nobody would find out otherwise. Of the error's text there are only a few plain words."""
    secret = b"eyJhbGciOi.secret-token"
    async with RefusingProxy(redis_server.port, {}) as proxy:
        connection = connect(proxy.url, command_seconds=2.0)
        assert await connection.open()
        proxy.answers = {"EVALSHA": b"-ERR syntax error near " + secret + b"\r\n"}
        for _ in range(5):
            assert await reason_of(connection.run(*SESSION)) == "response"
        assert connection.state == "up"
        redis_server.command("SADD", "set", "member")
        assert await connection.pipeline([("GET", "set")]) == [None]
        (record,) = [one for one in caplog.records if getattr(one, "tokenmw.kind", "") == "redis-response"]
        address = f"127.0.0.1:{proxy.port}"
        assert record.message == f"tokenmw: Redis refuses a command (syntax error near, {address})"
        assert getattr(record, "tokenmw.server") == address
        assert "secret-token" not in caplog.text


async def test_node_of_a_cluster_behind_a_plain_url_is_an_outage(
    connect: Connect, caplog: pytest.LogCaptureFixture, cluster: RedisServer
) -> None:
    """Commands for keys of other nodes failed without a word."""
    async with RefusingProxy(cluster.port, {"EVALSHA": b"-MOVED 1 10.0.0.1:7000\r\n"}) as proxy:
        connection = connect(proxy.url, command_seconds=2.0)
        assert not await connection.open()
        assert connection.state == "down"
    assert line(caplog, "cluster") == "it is a node of a cluster: use redis+cluster:// or a RedisCluster"


@needs_cluster_urls
async def test_single_server_behind_a_cluster_url_is_an_outage(
    connect: Connect, caplog: pytest.LogCaptureFixture, redis_server: RedisServer
) -> None:
    """The fix is the scheme."""
    connection = connect(f"redis+cluster://127.0.0.1:{redis_server.port}", command_seconds=2.0)
    assert not await connection.open()
    assert line(caplog, "cluster") == "it is not a cluster: use redis:// in place of redis+cluster://"


@pytest.mark.parametrize(
    ("userinfo", "expected"),
    [
        ("", "it requires a password, and redis= has none: redis://user:password@host"),
        (
            ":wr0ng@",
            "it refuses the user or the password of redis=; in a URL, write special characters of a password as %XX",
        ),
        (
            "bob:wr0ng@",
            "it refuses the user or the password of redis=; in a URL, write special characters of a password as %XX",
        ),
    ],
)
async def test_wrong_password_is_named(
    connect: Connect, executable: Path, caplog: pytest.LogCaptureFixture, userinfo: str, expected: str
) -> None:
    """The line never shows it."""
    with RedisServer("--requirepass", "sesame", executable=executable) as server:
        connection = connect(f"redis://{userinfo}127.0.0.1:{server.port}/0", command_seconds=2.0)
        assert not await connection.open()
    assert line(caplog, "auth") == expected
    assert "wr0ng" not in caplog.text


async def test_wrong_password_is_named_although_the_client_retries(
    connect: Connect, executable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """redis-py tries again after a wrong password by default, so the reason was `timeout`."""
    with RedisServer("--requirepass", "sesame", executable=executable) as server:
        retry = Retry(ConstantBackoff(0.2), 10)
        async with redis.asyncio.Redis(port=server.port, password="wr0ng", retry=retry) as client:
            connection = connect(client, connect_seconds=1.5)
            assert not await connection.open()
            assert (connection.state, connection.error) == ("down", "auth")
    assert line(caplog, "auth").startswith("it refuses the user or the password of redis=")
    assert "wr0ng" not in caplog.text


async def test_refused_port_is_named_although_the_client_retries(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a password, the reason was `timeout`."""
    retry = Retry(ConstantBackoff(0.2), 10)
    async with redis.asyncio.Redis(port=1, retry=retry) as client:
        assert not await connect(client, connect_seconds=0.5).open()
    assert line(caplog, "refused").startswith("nothing listens there")


async def test_error_that_the_program_handles_is_not_the_cause_of_a_timeout(connect: Connect, proxy: Proxy) -> None:
    """It is the context of each error that is raised meanwhile."""
    proxy.black_hole = True
    connection = connect(proxy.url)
    try:
        raise redis.asyncio.AuthenticationError("of another server")
    except redis.asyncio.AuthenticationError:
        assert await reason_of(get(connection)) == "timeout"


async def test_database_that_does_not_exist_is_named(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The fix is in the URL."""
    connection = connect(f"{redis_server.url.rpartition('/')[0]}/9999", command_seconds=2.0)
    assert not await connection.open()
    assert line(caplog, "database").startswith("it has no database of that number: change the number at the end")


@pytest.mark.parametrize(
    ("url", "reason", "expected"),
    [
        ("redis://127.0.0.1:1/0", "refused", "nothing listens there: check host and port, and that Redis runs"),
        ("redis://localhost:1/0", "refused", "nothing listens there: check host and port, and that Redis runs"),
        (
            "redis://no-such-host.invalid:6379/0",
            "dns",
            "its host name does not resolve: check the name, and this machine's name servers",
        ),
    ],
)
async def test_server_that_is_not_reached_is_named(
    connect: Connect, caplog: pytest.LogCaptureFixture, url: str, reason: str, expected: str
) -> None:
    """A wrong port and a wrong name have different fixes."""
    connection = connect(url)
    assert not await connection.open()
    assert (connection.state, connection.error) == ("down", reason)
    assert line(caplog, reason) == expected


async def test_too_many_open_files_are_named(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is not at fault, and the fix is on this machine. Redis is used as soon as a file is free."""
    resource = pytest.importorskip("resource", reason="this system has no bound of open files")
    connection = connect(redis_server.url, command_seconds=2.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull, "rb") as last:  # noqa: ASYNC230, PTH123  a number for the bound; nothing is read
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, hard))
        try:
            assert not await connection.open()
            assert (connection.state, connection.error) == ("down", "nofile")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert line(caplog, "nofile").startswith("this process has too many open files: raise `ulimit -n`")
    await until(lambda: connection.state == "up", within=20)


async def test_tls_to_a_plain_port_is_named(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis does not answer a TLS handshake, so it looks like a server that hangs."""
    connection = connect(redis_server.url.replace("redis://", "rediss://"), connect_seconds=0.3)
    assert not await connection.open()
    assert line(caplog, "timeout") == (
        "it has not answered yet: check host and port; rediss:// is for a port with TLS, redis:// for one without"
    )


async def test_state_is_unknown_until_redis_has_answered(redis_server: RedisServer) -> None:
    """A broker that has not used Redis yet does not say that it is in use."""
    broker = TokenBroker(
        {}, redis=redis_server.url, limits=Limits(command_seconds=2.0), secret_key="s" * 8 + "3cr3t-key"
    )
    assert broker.status().shared == "off"
    broker._open()
    first = broker.status()
    assert (first.shared, first.shared_error) == ("unknown", "")
    async with broker:
        second = broker.status()
        assert second.shared == "up"
        assert second.shared_since is not None
        assert first.shared_since is not None
        assert second.shared_since > first.shared_since


async def test_state_is_down_when_the_first_probe_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """It was `up` until the third request had failed."""
    caplog.set_level(logging.WARNING, "tokenmw")
    broker = TokenBroker({}, redis="redis://127.0.0.1:1/0", secret_key="s" * 8 + "3cr3t-key")
    began = time.time()
    async with broker:
        status = broker.status()
        assert (status.shared, status.shared_error) == ("down", "refused")
        assert status.shared_error_at is not None
        assert began <= status.shared_error_at <= time.time()
        (server,) = status.servers.items()
        assert server == (
            "127.0.0.1:1",
            ServerStatus("down", server[1].since, "refused", status.shared_error_at),
        )
    assert broker.status().servers == {}


async def test_server_that_starts_later_is_used(connect: Connect, private_redis: RedisServer) -> None:
    """The circuit that the first probe has opened is closed by a later one."""
    private_redis.kill()
    recovered: list[int] = []
    connection = connect(private_redis.url, on_recovered=lambda: recovered.append(1))
    assert not await connection.open()
    assert await reason_of(get(connection)) == "open"
    await asyncio.to_thread(private_redis.restart)
    await until(lambda: connection.state == "up", within=20)
    assert await get(connection) is None
    assert recovered == [1]
