"""A server that has lost its data is noticed by its epoch marker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.redis.waiting import until
from tests.servers import RedisServer
from tokenmw.redis.epoch import EpochMarkers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]


async def test_marker_stays_as_long_as_the_data(connect: Connect, redis_server: RedisServer) -> None:
    """The instance that writes it assumes a loss of data; after that, a read is one command and finds no change."""
    connection = connect(redis_server.url, command_seconds=2.0)
    mine, yours = EpochMarkers(), EpochMarkers()
    assert await mine.changed(connection, announces=True)
    redis_server.command("CONFIG", "RESETSTAT")
    assert not await mine.changed(connection, announces=True)
    assert b"cmdstat_evalsha:calls=1," in redis_server.command("INFO", "commandstats")
    assert not await yours.changed(connection, announces=True)
    assert [b"test:v1:{marker}:marker"] == redis_server.command("KEYS", "*")


async def test_all_instances_notice_a_flush(connect: Connect, redis_server: RedisServer) -> None:
    """So do those that read after another one has written a new marker; each notices it once."""
    connection = connect(redis_server.url, command_seconds=2.0)
    mine, yours = EpochMarkers(), EpochMarkers()
    for one in (mine, yours):
        await one.changed(connection, announces=True)
    redis_server.command("FLUSHALL")
    assert [True, True] == [await one.changed(connection, announces=True) for one in (mine, yours)]
    assert [False, False] == [await one.changed(connection, announces=True) for one in (mine, yours)]


async def test_restart_is_noticed_although_the_data_were_loaded(connect: Connect, private_redis: RedisServer) -> None:
    """The last writes before it may be missing."""
    connection = connect(private_redis.url, command_seconds=2.0)
    markers = EpochMarkers()
    await markers.changed(connection, announces=True)
    before = private_redis.command("GET", "test:v1:{marker}:marker")
    private_redis.restart(empty=False)
    assert before == private_redis.command("GET", "test:v1:{marker}:marker")
    reads = [await markers.changed(connection, announces=True) for _ in range(3)]
    assert [True] == [changed for changed in reads if changed]


async def test_unavailable_server_has_not_changed(connect: Connect, private_redis: RedisServer) -> None:
    """What it has lost is noticed after it has recovered."""
    connection = connect(private_redis.url)
    markers = EpochMarkers()
    await markers.changed(connection, announces=True)
    private_redis.kill()
    for _ in range(4):
        assert not await markers.changed(connection, announces=True)
    private_redis.restart()
    await until(lambda: connection.state == "up", within=6)
    assert await markers.changed(connection, announces=True)


async def test_marker_works_without_permission_for_info(connect: Connect, private_redis: RedisServer) -> None:
    """Without INFO a failover is not noticed, but everything else is."""
    private_redis.command("ACL", "SETUSER", "lean", "on", ">sesame", "~*", "+@all", "-info")
    connection = connect(private_redis.url.replace("//", "//lean:sesame@"), command_seconds=2.0)
    markers = EpochMarkers()
    assert await markers.changed(connection, announces=True)
    assert not await markers.changed(connection, announces=True)
    private_redis.command("FLUSHALL")
    assert await markers.changed(connection, announces=True)


def is_silent(markers: EpochMarkers) -> bool:
    """Return `silent` as it is now."""
    return markers.silent


async def test_a_process_that_announces_nothing_is_noticed_by_all(connect: Connect, redis_server: RedisServer) -> None:
    """Until a minute after its last read, also after others have read the marker."""
    connection = connect(redis_server.url, command_seconds=2.0)
    quiet, mine, yours = EpochMarkers(), EpochMarkers(), EpochMarkers()
    assert is_silent(mine), "nothing is known yet"
    await mine.changed(connection, announces=True)
    assert not is_silent(mine)
    await quiet.changed(connection, announces=False)
    for one in (mine, yours, mine):
        await one.changed(connection, announces=True)
        assert is_silent(one)
    assert 55_000 < redis_server.command("PTTL", "test:v1:{marker}:silent") <= 60_000
    redis_server.command("DEL", "test:v1:{marker}:silent")  # as after that minute
    await mine.changed(connection, announces=True)
    assert not is_silent(mine)


async def test_a_process_of_a_version_before_hints_is_noticed(connect: Connect, redis_server: RedisServer) -> None:
    """It lets the marker last for a day."""
    connection = connect(redis_server.url, command_seconds=2.0)
    mine, yours = EpochMarkers(), EpochMarkers()
    await mine.changed(connection, announces=True)
    redis_server.command("PEXPIRE", "test:v1:{marker}:marker", 86_400_000)
    for one in (mine, yours):
        await one.changed(connection, announces=True)
        assert one.silent


async def test_a_process_that_cannot_read_the_marker_knows_of_no_silence(
    connect: Connect, private_redis: RedisServer
) -> None:
    """It takes the others for silent, so that it compares its tokens as soon as it can."""
    connection = connect(private_redis.url)
    markers = EpochMarkers()
    await markers.changed(connection, announces=True)
    assert not markers.silent
    private_redis.kill()
    await markers.changed(connection, announces=True)
    assert markers.silent
