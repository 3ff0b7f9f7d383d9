"""All sessions in use are told to Redis again, by themselves, and what Redis has wins."""

from __future__ import annotations

import pytest

from tests.redis.waiting import until
from tests.servers import RedisServer
from tests.sessions.instance import SECRET, TTL, Instance, reset_statistics, sent
from tokenmw.redis.errors import RedisUnavailable

KEYS = [b"sk-live-%d" % number for number in range(250)]


@pytest.mark.parametrize("seal", [None, SECRET])
async def test_what_redis_lost_is_written_again(redis_server: RedisServer, seal: str | None) -> None:
    """In three pipelines, whoever was first to the mark; new instances find the same ids."""
    async with Instance(redis_server, seal=seal) as one, Instance(redis_server, seal=seal) as two:
        ids = [await one.get(key) for key in KEYS]
        redis_server.command("FLUSHALL")
        reset_statistics(redis_server)
        one.sync.begin_reupload()
        assert 250 == len(one.sync._reupload)
        await one.sync.send_reupload()
        assert (0, {"evalsha": 250}) == (len(one.sync._reupload), sent(redis_server))
        assert ids == [await two.get(key) for key in KEYS]


async def test_what_redis_has_wins(redis_server: RedisServer) -> None:
    """A caller who met another instance first keeps the id that it got there."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        await one.get(KEYS[0])
        redis_server.command("FLUSHALL")
        theirs = await two.get(KEYS[0])
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert theirs == one.manager.cached(KEYS[0])


async def test_an_idle_session_gets_no_more_than_the_rest_of_its_time(redis_server: RedisServer) -> None:
    """An offer is no use: idle ones are forgotten in time, and those that others use not cut short."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        ids = [await one.get(key) for key in KEYS[:2]]
        one.clock.advance(0.9 * TTL)
        redis_server.command("DEL", one.key(KEYS[0]))
        assert ids[1] == await two.get(KEYS[1])
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        left = [redis_server.command("PTTL", one.key(key)) / 1000 for key in KEYS[:2]]
        assert [pytest.approx(0.2 * TTL, abs=30), pytest.approx(1.1 * TTL, abs=30)] == left
        one.clock.advance(0.15 * TTL)
        redis_server.command("FLUSHALL")
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert [] == redis_server.command("KEYS", "*")


async def test_a_new_outage_loses_no_offer(private_redis: RedisServer) -> None:
    """What was not sent is sent later."""
    async with Instance(private_redis, command_seconds=0.3) as one, Instance(private_redis) as two:
        ids = [await one.get(key) for key in KEYS]
        private_redis.restart()
        private_redis.freeze()
        one.sync.begin_reupload()
        for _ in range(4):
            with pytest.raises(RedisUnavailable):
                await one.sync.send_reupload()
        assert 250 == len(one.sync._reupload)
        private_redis.thaw()
        await until(lambda: one.connection.state == "up", within=20)
        await one.sync.send_reupload()
        assert ids == [await two.get(key) for key in KEYS]


@pytest.mark.parametrize("garbage", [("SET", b"garbage"), ("LPUSH", b"1")])
async def test_damage_is_mended_among_the_others(redis_server: RedisServer, garbage: tuple[bytes, ...]) -> None:
    """What stands in a session's place and is none is replaced."""
    async with Instance(redis_server, seal=SECRET) as one, Instance(redis_server, seal=SECRET) as two:
        ids = [await one.get(key) for key in KEYS[:3]]
        redis_server.command("DEL", one.key(KEYS[1]))
        redis_server.command(garbage[0], one.key(KEYS[1]), *garbage[1:])
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert ids == [await two.get(key) for key in KEYS[:3]]


async def test_a_flood_of_unshared_ids_keeps_to_its_allowance(redis_server: RedisServer) -> None:
    """What Redis never had is new to it, and counts as such."""
    async with Instance(redis_server, new_sessions=1) as one:
        for key in KEYS:
            one.manager._add(key, one.manager._ids.derive(key), shared=False)
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert 10 == len(redis_server.command("KEYS", "*:session"))
