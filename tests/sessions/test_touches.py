"""Touches keep sessions in use alive in Redis, in batches; what Redis has wins."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers import RedisServer
from tests.sessions.instance import SECRET, TTL, Instance, reset_statistics, sent
from tokenmw.redis.errors import RedisUnavailable

KEY = b"sk-live-0815"


async def use_after_a_quarter(one: Instance, *keys: bytes) -> list[str | None]:
    """Let a quarter of the TTL pass, and send a request with each key."""
    one.clock.advance(0.251 * TTL)
    return [one.manager.cached(key) for key in keys]


async def test_a_touch_is_due_after_a_quarter_of_the_ttl(redis_server: RedisServer) -> None:
    """It is queued once, not before that time, and restarts the TTL in Redis."""
    async with Instance(redis_server) as one:
        session = await one.get(KEY)
        one.clock.advance(0.249 * TTL)
        assert session == one.manager.cached(KEY)
        assert one.sync.touches == 0
        redis_server.command("PEXPIRE", one.key(KEY), 10_000)
        await use_after_a_quarter(one, KEY, KEY, KEY)
        assert one.sync.touches == 1
        reset_statistics(redis_server)
        await one.sync.send_touches()
        assert sent(redis_server) == {"getex": 1}
        assert 1.29 * TTL * 1000 < redis_server.command("PTTL", one.key(KEY)) <= 1.3 * TTL * 1000
        assert (0, session) == (one.sync.touches, one.manager.cached(KEY))


async def test_a_use_just_before_the_next_touch_keeps_the_id_for_the_whole_ttl(redis_server: RedisServer) -> None:
    """What is left of the TTL in Redis at the last use that caused no touch is longer than `session_ttl`."""
    async with Instance(redis_server) as one:
        await one.get(KEY)
        stored = redis_server.command("PTTL", one.key(KEY)) / 1000
        one.clock.advance(0.249 * TTL)
        one.manager.cached(KEY)
        assert one.sync.touches == 0
        assert stored - 0.249 * TTL > TTL


async def test_an_unused_session_is_not_touched(redis_server: RedisServer) -> None:
    """Only requests keep a session alive, not housekeeping."""
    async with Instance(redis_server) as one:
        await one.get(KEY)
        one.clock.advance(0.9 * TTL)
        one.cache.expire()
        assert one.sync.touches == 0


async def test_many_touches_are_few_round_trips(redis_server: RedisServer) -> None:
    """250 touches are three pipelines."""
    keys = [b"%d" % number for number in range(250)]
    async with Instance(redis_server) as one:
        ids = [await one.get(key) for key in keys]
        await use_after_a_quarter(one, *keys)
        trips = 0
        pipeline = one.connection.pipeline

        async def counted(commands: list[tuple[bytes | str | int, ...]], **options: bool) -> list[object]:
            nonlocal trips
            trips += 1
            return await pipeline(commands, **options)

        one.connection.pipeline = counted  # type: ignore[assignment,method-assign]
        reset_statistics(redis_server)
        await one.sync.send_touches()
        assert (trips, sent(redis_server)) == (3, {"getex": 250})
        assert ids == [one.manager.cached(key) for key in keys]


async def test_a_touch_that_finds_another_id_takes_it(redis_server: RedisServer) -> None:
    """The id that was written first wins: two instances with different ids agree after one touch."""
    async with Instance(redis_server, new="random") as one, Instance(redis_server, new="random") as two:
        ours = await one.get(KEY)
        redis_server.command("DEL", one.key(KEY))
        theirs = await two.get(KEY)
        assert ours != theirs
        assert [ours] == await use_after_a_quarter(one, KEY)
        await one.sync.send_touches()
        assert theirs == one.manager.cached(KEY) == await two.get(KEY)


async def test_a_touch_that_finds_no_id_uploads_the_local_one(redis_server: RedisServer) -> None:
    """After an eviction or FLUSHALL the next touch stores the id again, and other instances take it."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        ours = await one.get(KEY)
        redis_server.command("FLUSHALL")
        await use_after_a_quarter(one, KEY)
        await one.sync.send_touches()
        assert 0 < redis_server.command("PTTL", one.key(KEY)) <= 1.3 * TTL * 1000
        assert ours == await two.get(KEY)


@pytest.mark.parametrize("seal", [None, SECRET])
@pytest.mark.parametrize("damage", [("SET", b"garbage"), ("LPUSH", b"1")])
async def test_a_touch_replaces_a_value_that_is_not_a_session(
    redis_server: RedisServer, damage: tuple[bytes, ...], seal: str | None
) -> None:
    """The other touches in the same pipeline are not disturbed."""
    keys = [KEY, b"other"]
    async with Instance(redis_server, seal=seal) as one, Instance(redis_server, seal=seal) as two:
        ids = [await one.get(key) for key in keys]
        redis_server.command("DEL", one.key(KEY))
        redis_server.command(damage[0], one.key(KEY), *damage[1:])
        await use_after_a_quarter(one, *keys)
        await one.sync.send_touches()
        assert ids == [one.manager.cached(key) for key in keys] == [await two.get(key) for key in keys]


async def test_queued_touches_are_bounded(redis_server: RedisServer) -> None:
    """Beyond `Limits(touches=…)` a touch is dropped until a quarter of the TTL later; a queued one is replaced."""
    keys = [b"%d" % number for number in range(30)]
    async with Instance(redis_server, touches=10) as one:
        for key in keys:
            await one.get(key)
        await use_after_a_quarter(one, *keys)
        assert one.sync.touches == 10
        newer = one.cache.add(keys[0], one.ids.random(), shared=False)
        one.sync.queue(keys[0], newer)
        assert newer is one.sync._queue[keys[0]]
        await one.sync.send_touches()
        await use_after_a_quarter(one, *keys[10:])
        assert one.sync.touches == 10


async def test_touches_stay_queued_while_redis_is_unavailable(private_redis: RedisServer) -> None:
    """All of them are sent when Redis is available again."""
    keys = [b"%d" % number for number in range(5)]
    async with Instance(private_redis) as one:
        ids = [await one.get(key) for key in keys]
        await use_after_a_quarter(one, *keys)
        private_redis.kill()
        with pytest.raises(RedisUnavailable):
            await one.sync.send_touches()
        assert one.sync.touches == 5
        private_redis.restart()
        async with asyncio.timeout(20.0):
            while one.sync.touches or not private_redis.command("DBSIZE"):
                try:
                    await one.sync.send_touches()
                except RedisUnavailable:
                    await asyncio.sleep(0.05)
        async with Instance(private_redis) as two:
            assert ids == [await two.get(key) for key in keys]
