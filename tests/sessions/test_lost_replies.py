"""Replies that do not come: Redis may have kept the candidate, and holds the id all the same that was handed out."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

import pytest

from tests.proxies import Proxy
from tests.redis.waiting import until
from tests.servers import RedisServer
from tests.sessions.instance import Instance, reset_statistics, sent
from tokenmw.errors import SessionUnavailable
from tokenmw.redis.epoch import EpochMarkers
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.testing import ManualClock

KEY, OTHER = b"sk-live-0815", b"sk-live-4711"
QUICK: Any = {"command_seconds": 0.3}


def held(server: RedisServer, one: Instance, api_key: bytes) -> str | None:
    """Return the id that Redis has for a key."""
    value: bytes | None = server.command("GET", one.key(api_key))
    return None if value is None else str(UUID(bytes=value[13:]))


async def test_in_doubt_redis_is_left_with_what_is_handed_out(private_redis: RedisServer) -> None:
    """The commands run and their replies are lost: where one takes long already, all have one id at once."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, command_seconds=1.0) as one,
        Instance(private_redis) as two,
    ):
        await asyncio.gather(*(one.get(b"%d" % number) for number in range(5)))  # so that there are some connections
        proxy.lose_replies = True
        waiting = asyncio.create_task(one.get(OTHER))
        await until(lambda: one.store.reply_may_be_lost(one.key(KEY)), within=10)
        mine = await one.get(KEY)
        await waiting
        await until(lambda: held(private_redis, one, KEY) is not None, within=10)
        assert mine == held(private_redis, one, KEY) == await two.get(KEY)


async def test_the_first_lost_reply_is_mended_by_the_next_round(private_redis: RedisServer) -> None:
    """What Redis kept was random; the next touches, which wait for no twentieth, take it."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, **QUICK) as one,
        Instance(private_redis) as two,
    ):
        proxy.lose_replies = True
        mine = await one.get(KEY)
        await until(lambda: held(private_redis, one, KEY) is not None, within=10)
        theirs = await two.get(KEY)
        assert (8, 4) == (UUID(mine).version, UUID(theirs).version)
        proxy.lose_replies = False
        proxy.cut()
        assert 1 == one.sync.touches
        await until_sent(one)
        assert theirs == one.manager.cached(KEY)


async def test_without_a_secret_the_lost_candidate_itself_is_handed_out(private_redis: RedisServer) -> None:
    """There is nothing else on which the others could agree."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, secret=None, **QUICK) as one,
        Instance(private_redis, secret=None) as two,
    ):
        proxy.lose_replies = True
        mine = await one.get(KEY)
        await until(lambda: held(private_redis, one, KEY) is not None, within=10)
        assert mine == one.manager.cached(KEY) == await two.get(KEY)


async def test_required_sessions_take_it_up_at_the_next_request(private_redis: RedisServer) -> None:
    """No id is handed out that Redis might not have."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, policy="required", **QUICK) as one,
    ):
        proxy.lose_replies = True
        with pytest.raises(SessionUnavailable):
            await one.get(KEY)
        await until(lambda: held(private_redis, one, KEY) is not None, within=10)
        proxy.lose_replies = False
        proxy.cut()
        assert held(private_redis, one, KEY) == await until_known(one)


async def test_after_the_doubt_ids_are_random_again(private_redis: RedisServer) -> None:
    """A key that comes back after its time has a new one then."""
    clock = ManualClock()
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, redis_clock=clock, command_seconds=1.0) as one,
    ):
        assert 4 == UUID(await one.get(b"before")).version
        proxy.lose_replies = True
        await one.get(OTHER)
        proxy.lose_replies = False
        proxy.cut()
        await until_sent(one)
        in_doubt = await one.get(KEY)
        assert 8 == UUID(in_doubt).version
        clock.advance(11)
        assert 4 == UUID(await one.get(b"after")).version
        # And one whose time is over meanwhile gets a new one, though its old one was derived.
        private_redis.command("DEL", one.key(KEY))
        one.clock.advance(4000)
        assert 4 == UUID(await one.get(KEY)).version


async def test_a_candidate_that_comes_too_late_is_not_kept(private_redis: RedisServer) -> None:
    """A server that was frozen runs what lies in its sockets: what was handed out meanwhile stays everybody's id."""
    async with Instance(private_redis, **QUICK) as one, Instance(private_redis, **QUICK) as two:
        for each in (one, two):
            await EpochMarkers().changed(each.connection)
        reset_statistics(private_redis)
        private_redis.freeze()
        mine, theirs = await asyncio.gather(one.get(KEY), two.get(KEY))
        over = one.connection.server_deadline(one.key(KEY))
        assert over is not None
        # The server's clock is this machine's. What it says of its time may have been a little old.
        while time.time() * 1000 < over + 100:  # noqa: ASYNC110  time is what has to pass
            await asyncio.sleep(0.01)
        private_redis.thaw()
        await until(lambda: sent(private_redis).get("evalsha", 0) >= 2, within=10)
        assert held(private_redis, one, KEY) is None
        assert mine == theirs
        await until_sent(one, two)
        assert mine == held(private_redis, one, KEY) == one.manager.cached(KEY) == two.manager.cached(KEY)


@pytest.mark.parametrize("wrong", [-3600, 3600])
async def test_a_clock_that_was_set_costs_one_more_round_trip(redis_server: RedisServer, wrong: int) -> None:
    """Whoever still waits is not late: the server tells its time, and the id is shared as ever."""
    async with Instance(redis_server) as one:
        began = asyncio.get_running_loop().time()
        one.connection.note_server_time(one.key(KEY), int((time.time() + wrong) * 1000), began=began)
        reset_statistics(redis_server)
        assert held(redis_server, one, KEY) is None
        assert await one.get(KEY) == held(redis_server, one, KEY)
        assert sent(redis_server) == {"evalsha": 2 if wrong < 0 else 1}
        await one.get(OTHER)
        assert sent(redis_server) == {"evalsha": 3 if wrong < 0 else 2}


async def until_sent(*instances: Instance) -> None:
    """Do what housekeeping does, until nothing waits."""
    async with asyncio.timeout(20):
        for one in instances:
            while one.sync.touches or one.connection.state != "up":
                try:
                    await one.sync.send_touches()
                except RedisUnavailable:
                    await asyncio.sleep(0.05)


async def until_known(one: Instance) -> str:
    """Send requests until one is served."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await one.get(KEY)
            except SessionUnavailable:
                await asyncio.sleep(0.05)
