"""A server that answers and cannot be used all the same, and a single key that cannot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.redis.waiting import get, until
from tests.servers import RedisServer
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]


@pytest.mark.parametrize(
    ("break_it", "mend_it", "expected"),
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
async def test_a_server_that_takes_no_writes_is_out_though_it_answers(
    connect: Connect, private_redis: RedisServer, break_it: tuple[str], mend_it: tuple[str], expected: str
) -> None:
    """A PING would succeed; the probe writes, so it closes the breaker only when writes work again."""
    connection = connect(private_redis.url)
    assert await connection.open()
    private_redis.command(*break_it)
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match=expected):
            await connection.run("session", (b"s",), ("id", 1_000))
    assert (connection.state, connection.error) == ("down", expected)
    await asyncio.sleep(0.3)
    assert connection.state == "down"
    private_redis.command(*mend_it)
    await until(lambda: connection.state == "up", within=6)


async def test_a_database_that_the_server_does_not_have_is_told(connect: Connect, redis_server: RedisServer) -> None:
    """What is refused in the handshake is no fault of one key's: every command would fail, and nobody hear of it."""
    connection = connect(f"{redis_server.url.rpartition('/')[0]}/9999")
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="database"):
            await get(connection)
    assert (connection.state, connection.error) == ("down", "database")


async def test_a_read_only_server_is_noticed_by_a_pipeline(connect: Connect, private_redis: RedisServer) -> None:
    """Errors inside of a batch that are all keys' count, and are no success."""
    connection = connect(private_redis.url)
    private_redis.command("SET", "a", "1")
    private_redis.command("REPLICAOF", "127.0.0.1", "1")
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="readonly"):
            await connection.pipeline([("GETEX", "a", "PX", 1_000)])
    assert connection.state == "down"


async def test_one_key_of_another_type_spoils_no_batch(connect: Connect, redis_server: RedisServer) -> None:
    """It gives None, and Redis stays in use."""
    connection = connect(redis_server.url)
    redis_server.command("SADD", "set", "member")
    redis_server.command("SET", "a", "value")
    for _ in range(5):
        assert await connection.pipeline([("GET", "set"), ("GET", "a"), ("GET", "b")]) == [None, b"value", None]
    assert await connection.pipeline([]) == []
    assert connection.state == "up"


async def test_a_fault_of_one_key_opens_nothing(connect: Connect, redis_server: RedisServer) -> None:
    """However often it comes."""
    connection = connect(redis_server.url)
    redis_server.command("SADD", "set", "member")
    for _ in range(5):
        with pytest.raises(RedisUnavailable, match="response"):
            await get(connection, "set")
    assert connection.state == "up"
