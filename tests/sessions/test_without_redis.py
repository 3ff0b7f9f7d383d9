"""While Redis is unavailable requests still get ids, and afterwards all instances agree on them."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers import RedisServer
from tests.sessions.instance import TTL, Instance, reset_statistics, sent
from tokenmw.errors import SessionUnavailable
from tokenmw.limits import Limits
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.sessions.cache import SessionCache
from tokenmw.sessions.derive import SessionIds
from tokenmw.sessions.manager import SessionManager
from tokenmw.testing import ManualClock

KEY = b"sk-live-0815"


async def restart(server: RedisServer, *instances: Instance) -> None:
    """Restart the server, which is empty then, and do housekeeping's rounds until all is uploaded."""
    server.restart()
    async with asyncio.timeout(20.0):
        for one in instances:
            while one.connection.state != "up":  # noqa: ASYNC110  the probe waits in real time
                await asyncio.sleep(0.02)
    for one in instances:
        await one.sync.send_touches()
        await one.sync.send_reupload()
    for one in instances:  # the first ones have not seen what the others wrote
        one.sync.begin_reupload()
        await one.sync.send_reupload()


async def kill(server: RedisServer, *instances: Instance) -> None:
    """Kill the server, and let each instance notice."""
    server.kill()
    await notice_outage(*instances)


async def notice_outage(*instances: Instance) -> None:
    """Let instances send commands until their circuit breakers open."""
    for one in instances:
        while one.connection.state == "up":
            with pytest.raises(RedisUnavailable):
                await one.store.touch([b"x"])


async def test_derived_ids_agree_and_are_uploaded_later(private_redis: RedisServer) -> None:
    """With a secret, a key first seen during the outage has the same id everywhere, and keeps it."""
    async with Instance(private_redis) as one, Instance(private_redis) as two:
        await kill(private_redis, one, two)
        session = await one.get(KEY)
        assert session == await two.get(KEY) == one.manager.cached(KEY)
        await restart(private_redis, one, two)
        assert session == await one.get(KEY) == await two.get(KEY)
        async with Instance(private_redis) as three:
            assert session == await three.get(KEY)


async def test_a_known_key_has_one_id_during_an_outage(private_redis: RedisServer) -> None:
    """An instance that does not know the key derives the id that Redis had, which the others serve from memory."""
    async with Instance(private_redis) as one, Instance(private_redis) as two:
        session = await one.get(KEY)
        await kill(private_redis, one, two)
        assert session == await one.get(KEY) == await two.get(KEY)
        await restart(private_redis, one, two)
        assert session == await one.get(KEY) == await two.get(KEY)


async def test_a_reset_during_an_outage_is_unknown_to_some(private_redis: RedisServer) -> None:
    """Instances that know the new id serve it; the former one is derived where neither Redis nor the reset is known."""
    async with Instance(private_redis) as one, Instance(private_redis) as two, Instance(private_redis) as three:
        old = await one.get(KEY)
        new = await one.manager.reset(KEY)
        assert new == await two.get(KEY)
        await kill(private_redis, one, two, three)
        assert (new, new, old) == (await one.get(KEY), await two.get(KEY), await three.get(KEY))
        await restart(private_redis, one, two, three)
        assert new == await one.get(KEY) == await two.get(KEY) == await three.get(KEY)
        private_redis.command("FLUSHALL")  # what is kept of the reset is lost, too
        async with Instance(private_redis) as four:
            assert old == await four.get(KEY)


async def test_no_reset_gives_an_id_twice(redis_server: RedisServer) -> None:
    """Neither repeated resets nor those of a session that has expired meanwhile do."""
    async with Instance(redis_server) as one:
        ids = [await one.get(KEY)]
        for _ in range(3):
            ids += [await one.manager.reset(KEY), await one.manager.reset(KEY)]
            one.clock.advance(2 * TTL)
            redis_server.command("DEL", one.key(KEY))
            assert ids[-1] == await one.get(KEY)
        assert 7 == len(set(ids))


async def test_random_ids_agree_after_the_outage(private_redis: RedisServer) -> None:
    """Without a secret each process has its own id during the outage; the first one uploaded wins."""
    async with Instance(private_redis, secret=None) as one, Instance(private_redis, secret=None) as two:
        await kill(private_redis, one, two)
        mine, other = await one.get(KEY), await two.get(KEY)
        assert mine != other
        assert (mine, other) == (await one.get(KEY), await two.get(KEY))
        await restart(private_redis, one, two)
        assert mine == await one.get(KEY) == await two.get(KEY)


async def test_a_cached_id_is_kept_and_all_agree_afterwards(private_redis: RedisServer) -> None:
    """If the server comes back empty, the id is uploaded immediately, not only with the next touch."""
    async with Instance(private_redis, new="random") as one, Instance(private_redis) as two:
        session = await one.get(KEY)
        await kill(private_redis, one, two)
        assert session == await one.get(KEY)
        derived = await two.get(KEY)
        assert derived != session
        await restart(private_redis, one, two)
        assert session == await one.get(KEY) == await two.get(KEY)


async def test_the_required_policy_raises_during_the_outage(private_redis: RedisServer) -> None:
    """Each request gets its own exception, a cached id is still served, and requests succeed after the outage."""
    async with Instance(private_redis, policy="required") as one:
        cached = await one.get(b"cached")
        await kill(private_redis, one)
        results = await asyncio.gather(*(one.get(KEY) for _ in range(3)), return_exceptions=True)
        assert [SessionUnavailable] * 3 == [type(result) for result in results]
        assert len({id(result) for result in results}) == 3
        with pytest.raises(SessionUnavailable):
            await one.manager.reset(b"cached")
        assert cached == await one.get(b"cached")
        await restart(private_redis, one)
        assert await one.get(KEY) == await one.get(KEY)
    with pytest.raises(SessionUnavailable):
        await one.get(b"after closing")


async def test_reset_gives_a_new_id_to_all(redis_server: RedisServer) -> None:
    """It holds immediately on this instance and at first sights, and on other instances from their next touch."""
    async with Instance(redis_server) as one, Instance(redis_server) as two, Instance(redis_server) as three:
        old = await one.get(KEY)
        assert old == await two.get(KEY)
        new = await one.manager.reset(KEY)
        assert (True, new, new) == (new != old, await one.get(KEY), await three.get(KEY))
        two.clock.advance(0.251 * TTL)
        two.manager.cached(KEY)
        await two.sync.send_touches()
        assert new == await two.get(KEY)
        assert redis_server.command("PTTL", one.key(KEY)) > 1.29 * TTL * 1000


async def test_a_reset_during_a_first_sight_holds(redis_server: RedisServer) -> None:
    """A first sight in progress does not bring the old id back."""
    async with Instance(redis_server) as one:
        for number in range(20):
            key = b"%d" % number
            request = asyncio.create_task(one.get(key))
            for _ in range(number):  # so that the reset comes at each step of the first sight
                await asyncio.sleep(0)
            new = await one.manager.reset(key)
            await request
            assert new == one.manager.cached(key)


@pytest.mark.campaign
async def test_a_reset_during_an_outage_replaces_the_stored_id(private_redis: RedisServer) -> None:
    """The new id is served immediately, replaces the old one after the outage, and other instances take it."""
    async with Instance(private_redis, command_seconds=0.3) as one, Instance(private_redis) as two:
        old = await one.get(KEY)
        assert old == await two.get(KEY)
        private_redis.freeze()
        await notice_outage(one)  # so that no command of the reset waits in the frozen server's socket
        new = await one.manager.reset(KEY)
        assert (True, new) == (new != old, await one.get(KEY))
        private_redis.thaw()
        async with asyncio.timeout(20.0):
            while one.sync.touches or one.connection.state != "up":
                try:
                    await one.sync.send_touches()
                except RedisUnavailable:
                    await asyncio.sleep(0.05)
        two.clock.advance(0.251 * TTL)
        two.manager.cached(KEY)
        await two.sync.send_touches()
        assert (new, new) == (await one.get(KEY), await two.get(KEY))


async def test_a_reset_without_redis_holds_in_this_process() -> None:
    """Without Redis, session ids are this process's own."""
    clock, limits = ManualClock(), Limits()
    manager = SessionManager(
        cache=SessionCache(ttl=TTL, limits=limits, clock=clock),
        sync=None,
        first_sights=None,
        ids=SessionIds(None),
        policy="available",
        clock=clock,
    )
    old = await manager.get(KEY)
    assert old == await manager.get(KEY)
    new = await manager.reset(KEY)
    assert (True, new) == (new != old, await manager.get(KEY))


async def test_closing_during_a_first_sight_gives_its_waiters_one_id(private_redis: RedisServer) -> None:
    """They all get the same local id, even without a secret."""
    async with Instance(private_redis, secret=None, command_seconds=0.3) as one:
        private_redis.freeze()
        waiters = [asyncio.create_task(one.get(KEY)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await one.stop()
        ids = await asyncio.gather(*waiters)
        assert {one.manager.cached(KEY)} == set(ids)
        private_redis.thaw()


async def test_first_sights_beyond_the_bound_go_on_without_redis(redis_server: RedisServer) -> None:
    """A burst beyond `Limits(first_sights=…)` does not wait, and all instances agree when its ids are uploaded."""
    async with Instance(redis_server, secret=None, first_sights=5) as one, Instance(redis_server, secret=None) as two:
        keys = [b"%d" % number for number in range(50)]
        ids = await asyncio.gather(*(one.get(key) for key in keys))
        assert len(set(ids)) == 50
        await one.sync.send_touches()
        assert [one.manager.cached(key) for key in keys] == [await two.get(key) for key in keys]


async def test_an_id_that_was_reset_is_uploaded_with_one_command(redis_server: RedisServer) -> None:
    """It replaces what Redis has, so it is not uploaded "if absent" as well."""
    async with Instance(redis_server) as one:
        await one.get(KEY)
        session = one.cache.add(KEY, one.ids.random(), shared=False)
        session.overwrite = True
        one.sync.queue(KEY, session)
        reset_statistics(redis_server)
        await one.sync.send_touches()
        assert {"evalsha": 1} == sent(redis_server)
        assert (True, False, 0) == (session.shared, session.overwrite, one.sync.touches)
