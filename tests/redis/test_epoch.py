"""A server that has lost what it held is noticed by its mark, whoever looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.redis.waiting import until
from tests.servers import RedisServer
from tokenmw.redis.epoch import EpochMarkers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]


async def test_a_mark_stays_while_the_data_do(connect: Connect, redis_server: RedisServer) -> None:
    """Whoever leaves it takes it that something may be missing; after that one command a look finds nothing new."""
    connection = connect(redis_server.url, command_seconds=2.0)
    mine, yours = EpochMarkers(), EpochMarkers()
    assert await mine.changed(connection)
    redis_server.command("CONFIG", "RESETSTAT")
    assert not await mine.changed(connection)
    assert b"cmdstat_evalsha:calls=1," in redis_server.command("INFO", "commandstats")
    assert not await yours.changed(connection)
    assert [b"test:v1:{marker}:marker"] == redis_server.command("KEYS", "*")


async def test_an_emptied_server_is_noticed_by_all(connect: Connect, redis_server: RedisServer) -> None:
    """Also by those who look when another one has already left a new mark; and once."""
    connection = connect(redis_server.url, command_seconds=2.0)
    mine, yours = EpochMarkers(), EpochMarkers()
    for one in (mine, yours):
        await one.changed(connection)
    redis_server.command("FLUSHALL")
    assert [True, True] == [await one.changed(connection) for one in (mine, yours)]
    assert [False, False] == [await one.changed(connection) for one in (mine, yours)]


async def test_a_restart_is_noticed_even_with_the_data(connect: Connect, private_redis: RedisServer) -> None:
    """What was written last may be missing in what it has loaded."""
    connection = connect(private_redis.url, command_seconds=2.0)
    markers = EpochMarkers()
    await markers.changed(connection)
    before = private_redis.command("GET", "test:v1:{marker}:marker")
    private_redis.restart(empty=False)
    assert before == private_redis.command("GET", "test:v1:{marker}:marker")
    looks = [await markers.changed(connection) for _ in range(3)]  # the first finds its connection gone
    assert [True] == [one for one in looks if one]


async def test_a_server_that_is_out_has_no_news(connect: Connect, private_redis: RedisServer) -> None:
    """What it lost is found when it is back."""
    connection = connect(private_redis.url)
    markers = EpochMarkers()
    await markers.changed(connection)
    private_redis.kill()
    for _ in range(4):
        assert not await markers.changed(connection)
    private_redis.restart()
    await until(lambda: connection.state == "up", within=6)
    assert await markers.changed(connection)


async def test_who_may_not_ask_for_the_history_has_the_mark(connect: Connect, private_redis: RedisServer) -> None:
    """An ACL without INFO costs the notice of a failover, nothing else."""
    private_redis.command("ACL", "SETUSER", "lean", "on", ">sesame", "~*", "+@all", "-info")
    connection = connect(private_redis.url.replace("//", "//lean:sesame@"), command_seconds=2.0)
    markers = EpochMarkers()
    assert await markers.changed(connection)
    assert not await markers.changed(connection)
    private_redis.command("FLUSHALL")
    assert await markers.changed(connection)
