"""Servers that respond but refuse commands, and single keys that fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.redis.refusing_proxy import RefusingProxy
from tests.redis.waiting import get, until
from tests.servers import RedisServer
from tokenmw.redis.connection import UNAVAILABLE
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.scripts import script_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import Command, RedisConnection

    Connect = Callable[..., RedisConnection]


@pytest.mark.parametrize(
    ("break_it", "fix_it", "expected"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "full"),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "readonly"),
        (
            ("CONFIG", "SET", "min-replicas-to-write", "1"),
            ("CONFIG", "SET", "min-replicas-to-write", "0"),
            "replicas",
        ),
        (("ACL", "SETUSER", "default", "-set"), ("ACL", "SETUSER", "default", "+set"), "permission"),
    ],
)
async def test_server_that_refuses_writes_is_unavailable(
    connect: Connect, private_redis: RedisServer, break_it: tuple[str], fix_it: tuple[str], expected: str
) -> None:
    """PING would succeed; a probe writes, so the circuit closes only when writes work again."""
    connection = connect(private_redis.url)
    assert await connection.open()
    private_redis.command(*break_it)
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match=expected):
            await connection.run("session", (b"s",), ("id", 1_000))
    assert (connection.state, connection.error) == ("down", expected)
    await asyncio.sleep(0.3)
    assert connection.state == "down"
    private_redis.command(*fix_it)
    await until(lambda: connection.state == "up", within=6)


async def test_database_that_does_not_exist_is_an_outage(connect: Connect, redis_server: RedisServer) -> None:
    """A refusal in the handshake is no fault of one key: every command would fail, and no log line would say so."""
    connection = connect(f"{redis_server.url.rpartition('/')[0]}/9999")
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="database"):
            await get(connection)
    assert (connection.state, connection.error) == ("down", "database")


async def test_pipeline_notices_a_read_only_server(connect: Connect, private_redis: RedisServer) -> None:
    """An error in a batch that concerns all keys counts as a failure, and the batch not as a success."""
    connection = connect(private_redis.url)
    private_redis.command("SET", "a", "1")
    private_redis.command("REPLICAOF", "127.0.0.1", "1")
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="readonly"):
            await connection.pipeline([("GETEX", "a", "PX", 1_000)])
    assert connection.state == "down"


async def test_write_that_a_full_server_refuses_fails_alone_in_a_batch(
    connect: Connect, private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One made the whole batch unavailable: callers whose sessions Redis has got other ids. It counts as a failure."""
    connection = connect(private_redis.url, command_seconds=2.0)
    assert await connection.open()
    for key in ("a", "b"):
        private_redis.command("SET", key, f"id of {key}")
    private_redis.command("CONFIG", "SET", "maxmemory", "1")
    commands = [script_command("session", key, ("new", 60_000)) for key in (b"a", b"other", b"b")]
    for _ in range(3):
        assert connection.state == "up"
        assert await connection.pipeline(commands) == [b"id of a", UNAVAILABLE, b"id of b"]
    assert (connection.state, connection.error) == ("down", "full")
    server = f"127.0.0.1:{private_redis.port}"
    assert caplog.messages == [f"tokenmw: Redis unavailable (full, {server}); serving from local caches"]


async def test_error_reply_of_one_command_fails_alone_in_a_batch(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the server has against one command, the replies to the others are used."""
    redis_server.command("SET", "a", "value")
    redis_server.command("SET", "text", "value")
    async with RefusingProxy(
        redis_server.port, {"PTTL": b"-NOPERM User x has no permissions to run 'pttl'\r\n"}
    ) as proxy:
        connection = connect(proxy.url, command_seconds=2.0)
        for _ in range(5):
            commands: list[Command] = [("GET", "a"), ("PTTL", "a"), ("GETEX", "text", "PX", "nonsense"), ("GET", "b")]
            assert await connection.pipeline(commands) == [b"value", UNAVAILABLE, None, None]
        assert connection.state == "up"
    assert "Redis failed 1 command (permission" in caplog.text


async def test_key_of_another_type_fails_alone_in_a_batch(connect: Connect, redis_server: RedisServer) -> None:
    """Its reply is None, and Redis stays in use."""
    connection = connect(redis_server.url)
    redis_server.command("SADD", "set", "member")
    redis_server.command("SET", "a", "value")
    for _ in range(5):
        assert await connection.pipeline([("GET", "set"), ("GET", "a"), ("GET", "b")]) == [None, b"value", None]
    assert await connection.pipeline([]) == []
    assert connection.state == "up"


async def test_failure_of_one_key_does_not_open_the_circuit(connect: Connect, redis_server: RedisServer) -> None:
    """However often it happens, the state stays up."""
    connection = connect(redis_server.url)
    redis_server.command("SADD", "set", "member")
    for _ in range(5):
        with pytest.raises(RedisUnavailable, match="response"):
            await get(connection, "set")
    assert connection.state == "up"
