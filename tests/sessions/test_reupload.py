"""After Redis may have lost data, all sessions in use are uploaded again; what Redis has wins."""

from __future__ import annotations

import pytest

from tests.redis.waiting import until
from tests.servers import RedisServer
from tests.sessions.instance import SECRET, TTL, Instance, commands, reset_statistics, sent
from tokenmw.redis.errors import RedisUnavailable

KEYS = [b"sk-live-%d" % number for number in range(250)]


@pytest.mark.parametrize("seal", [None, SECRET])
async def test_lost_sessions_are_uploaded_again(redis_server: RedisServer, seal: str | None) -> None:
    """Each is uploaded once, and another instance finds the same ids."""
    async with Instance(redis_server, seal=seal) as one, Instance(redis_server, seal=seal) as two:
        ids = [await one.get(key) for key in KEYS]
        redis_server.command("FLUSHALL")
        reset_statistics(redis_server)
        one.sync.begin_reupload()
        assert 250 == len(one.sync._reupload)
        await one.sync.send_reupload()
        assert (0, 250, {}) == (len(one.sync._reupload), commands(redis_server)["set"], sent(redis_server))
        assert ids == [await two.get(key) for key in KEYS]


async def test_what_redis_has_wins(redis_server: RedisServer) -> None:
    """A session that another instance stored first replaces the local one."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        await one.get(KEYS[0])
        redis_server.command("FLUSHALL")
        theirs = await two.get(KEYS[0])
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert theirs == one.manager.cached(KEYS[0])


async def test_an_upload_does_not_count_as_use(redis_server: RedisServer) -> None:
    """An idle session gets only the rest of its TTL, and one that other instances use is not cut short."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        ids = [await one.get(key) for key in KEYS[:2]]
        one.clock.advance(0.9 * TTL)
        redis_server.command("DEL", one.key(KEYS[0]))
        assert ids[1] == await two.get(KEYS[1])
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        left = [redis_server.command("PTTL", one.key(key)) / 1000 for key in KEYS[:2]]
        assert [pytest.approx(0.4 * TTL, abs=30), pytest.approx(1.3 * TTL, abs=30)] == left
        one.clock.advance(0.15 * TTL)
        redis_server.command("FLUSHALL")
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert [] == redis_server.command("KEYS", "*")


async def test_an_outage_during_a_reupload_loses_nothing(private_redis: RedisServer) -> None:
    """The sessions that were not sent are sent when Redis is available again."""
    async with Instance(private_redis, background_seconds=0.3) as one, Instance(private_redis) as two:
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
async def test_a_damaged_value_is_replaced(redis_server: RedisServer, garbage: tuple[bytes, ...]) -> None:
    """A value that is not a session is replaced, and the other sessions of the batch are uploaded as well."""
    async with Instance(redis_server, seal=SECRET) as one, Instance(redis_server, seal=SECRET) as two:
        ids = [await one.get(key) for key in KEYS[:3]]
        redis_server.command("DEL", one.key(KEYS[1]))
        redis_server.command(garbage[0], one.key(KEYS[1]), *garbage[1:])
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert ids == [await two.get(key) for key in KEYS[:3]]


async def test_a_reupload_of_unshared_ids_takes_permits(redis_server: RedisServer) -> None:
    """A session that Redis never had is a new one, so `Limits(new_sessions=…)` bounds it."""
    async with Instance(redis_server, new_sessions=1) as one:
        for key in KEYS:
            one.cache.add(key, one.ids.derive(key), shared=False)
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert 10 == len(redis_server.command("KEYS", "*:session"))
