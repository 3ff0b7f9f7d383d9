"""When a reply is lost, Redis may or may not have stored the candidate; in the end all instances agree on one id."""

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


def stored_id(server: RedisServer, one: Instance, api_key: bytes) -> str | None:
    """Return the session id that Redis has for an API key."""
    value: bytes | None = server.command("GET", one.key(api_key))
    return None if value is None else str(UUID(bytes=value[13:]))


async def test_after_a_slow_reply_redis_stores_the_id_that_requests_get(private_redis: RedisServer) -> None:
    """While one command is slow, the next candidate is the derived id: stored or not, all instances have the same."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, new="random", command_seconds=1.0) as one,
        Instance(private_redis) as two,
    ):
        await asyncio.gather(*(one.store.touch([b"x"]) for _ in range(5)))  # opens some connections
        proxy.lose_replies = True
        waiting = asyncio.create_task(one.get(OTHER))
        await until(lambda: one.store.reply_may_be_lost(one.key(KEY)), within=10)
        mine = await one.get(KEY)
        await waiting
        await until(lambda: stored_id(private_redis, one, KEY) is not None, within=10)
        assert mine == stored_id(private_redis, one, KEY) == await two.get(KEY)


async def test_the_first_lost_reply_changes_no_id(private_redis: RedisServer) -> None:
    """Redis stored the derived id, which is what the request got without the reply."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, **QUICK) as one,
        Instance(private_redis) as two,
    ):
        proxy.lose_replies = True
        mine = await one.get(KEY)
        await until(lambda: stored_id(private_redis, one, KEY) is not None, within=10)
        assert mine == stored_id(private_redis, one, KEY) == await two.get(KEY)


async def test_after_the_first_lost_reply_the_next_touches_take_a_random_id(private_redis: RedisServer) -> None:
    """Redis stored a random candidate; the next round of touches takes it, not only a touch that is due."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, new="random", **QUICK) as one,
        Instance(private_redis) as two,
    ):
        proxy.lose_replies = True
        mine = await one.get(KEY)
        await until(lambda: stored_id(private_redis, one, KEY) is not None, within=10)
        theirs = await two.get(KEY)
        assert (8, 4) == (UUID(mine).version, UUID(theirs).version)
        proxy.lose_replies = False
        proxy.cut()
        assert 1 == one.sync.touches
        await until_sent(one)
        assert theirs == one.manager.cached(KEY)


async def test_without_a_secret_the_lost_candidate_is_the_session_id(private_redis: RedisServer) -> None:
    """No id can be derived, so only the candidate may be the same on other instances."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, secret=None, **QUICK) as one,
        Instance(private_redis, secret=None) as two,
    ):
        proxy.lose_replies = True
        mine = await one.get(KEY)
        await until(lambda: stored_id(private_redis, one, KEY) is not None, within=10)
        assert mine == one.manager.cached(KEY) == await two.get(KEY)


async def test_required_sessions_take_the_stored_candidate_at_the_next_request(private_redis: RedisServer) -> None:
    """The first request gets an error, because Redis may not have the id."""
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, policy="required", **QUICK) as one,
    ):
        proxy.lose_replies = True
        with pytest.raises(SessionUnavailable):
            await one.get(KEY)
        await until(lambda: stored_id(private_redis, one, KEY) is not None, within=10)
        proxy.lose_replies = False
        proxy.cut()
        assert stored_id(private_redis, one, KEY) == await get_when_available(one)


async def test_ten_seconds_after_a_lost_reply_candidates_are_random_again(private_redis: RedisServer) -> None:
    """With `session_ids="random"`, a session that has expired since gets a new id, though its old one was derived."""
    clock = ManualClock()
    async with (
        Proxy(private_redis.port) as proxy,
        Instance(private_redis, url=proxy.url, new="random", redis_clock=clock, command_seconds=1.0) as one,
    ):
        assert 4 == UUID(await one.get(b"before")).version
        proxy.lose_replies = True
        await one.get(OTHER)
        proxy.lose_replies = False
        proxy.cut()
        await until_sent(one)
        derived = await one.get(KEY)
        assert 8 == UUID(derived).version
        clock.advance(11)
        assert 4 == UUID(await one.get(b"after")).version
        private_redis.command("DEL", one.key(KEY))
        one.clock.advance(4000)
        assert 4 == UUID(await one.get(KEY)).version


async def test_a_candidate_that_arrives_after_its_deadline_is_not_stored(private_redis: RedisServer) -> None:
    """A server that was frozen runs the commands in its sockets, and the ids that requests got meanwhile stay."""
    async with Instance(private_redis, **QUICK) as one, Instance(private_redis, **QUICK) as two:
        for each in (one, two):
            await EpochMarkers().changed(each.connection, announces=True)
        reset_statistics(private_redis)
        private_redis.freeze()
        mine, theirs = await asyncio.gather(one.get(KEY), two.get(KEY))
        deadline = one.connection.server_deadline(one.key(KEY))
        assert deadline is not None
        # The server's clock is this machine's; its time as the client learned it may be a little old.
        while time.time() * 1000 < deadline + 100:  # noqa: ASYNC110  real time has to pass
            await asyncio.sleep(0.01)
        private_redis.thaw()
        await until(lambda: sent(private_redis).get("evalsha", 0) >= 2, within=10)
        assert stored_id(private_redis, one, KEY) is None
        assert mine == theirs
        await until_sent(one, two)
        assert mine == stored_id(private_redis, one, KEY) == one.manager.cached(KEY) == two.manager.cached(KEY)


@pytest.mark.parametrize("wrong", [-3600, 3600])
async def test_a_wrong_idea_of_the_servers_time_costs_one_more_round_trip(
    redis_server: RedisServer, wrong: int
) -> None:
    """A command that is not late in fact is sent again with the server's time, and the id is shared as usual."""
    async with Instance(redis_server) as one:
        began = asyncio.get_running_loop().time()
        one.connection.note_server_time(one.key(KEY), int((time.time() + wrong) * 1000), began=began)
        reset_statistics(redis_server)
        assert stored_id(redis_server, one, KEY) is None
        assert await one.get(KEY) == stored_id(redis_server, one, KEY)
        assert sent(redis_server) == {"evalsha": 2 if wrong < 0 else 1}
        await one.get(OTHER)
        assert sent(redis_server) == {"evalsha": 3 if wrong < 0 else 2}


async def until_sent(*instances: Instance) -> None:
    """Send touches as housekeeping does, until none is queued."""
    async with asyncio.timeout(20):
        for one in instances:
            while one.sync.touches or one.connection.state != "up":
                try:
                    await one.sync.send_touches()
                except RedisUnavailable:
                    await asyncio.sleep(0.05)


async def get_when_available(one: Instance) -> str:
    """Send requests until one gets an id, and return that."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await one.get(KEY)
            except SessionUnavailable:
                await asyncio.sleep(0.05)
