"""One API key has one session id on all instances, at the price of one round trip at first sight."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

import pytest

from tests.servers import RedisServer
from tests.sessions.instance import SECRET, TTL, Instance, reset_statistics, sent
from tokenmw.testing import ManualClock

KEY = b"sk-live-0815"


async def test_first_sight_is_one_round_trip_and_the_rest_none(redis_server: RedisServer) -> None:
    """Two instances, one id: each asks once, and then both serve from memory."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        await one.get(b"so that the script is known")
        reset_statistics(redis_server)
        session = await one.get(KEY)
        assert sent(redis_server) == {"evalsha": 1}
        assert session == await two.get(KEY)
        assert sent(redis_server) == {"evalsha": 2}
        for _ in range(100):
            assert session == await one.get(KEY) == one.manager.cached(KEY) == two.manager.cached(KEY)
        await one.sync.send_touches()
        assert sent(redis_server) == {"evalsha": 2}
        assert UUID(session).version == 4
        assert session != await one.get(KEY + b"1")


async def test_thousand_first_requests_of_one_key_are_one_command(redis_server: RedisServer) -> None:
    """They wait for the first one's answer; half of them leaving changes nothing."""
    async with Instance(redis_server) as one:
        await one.get(b"so that the script is known")
        reset_statistics(redis_server)
        requests = [asyncio.create_task(one.get(KEY)) for _ in range(1_000)]
        await asyncio.sleep(0)
        for request in requests[::2]:
            request.cancel()
        ends = await asyncio.gather(*requests, return_exceptions=True)
        assert len(set(ends[1::2])) == 1
        assert {asyncio.CancelledError} == {type(end) for end in ends[::2]}
        assert sent(redis_server) == {"evalsha": 1}
        assert len(one.manager._first_sights) == 0


async def test_idle_for_less_than_the_ttl_keeps_the_id(redis_server: RedisServer) -> None:
    """Nine tenths of the time between any two requests, again and again; Redis holds it for 1.1 times the ttl."""
    async with Instance(redis_server) as one:
        session = await one.get(KEY)
        assert 1.09 * TTL * 1000 < redis_server.command("PTTL", one.key(KEY)) <= 1.1 * TTL * 1000
        for _ in range(5):
            one.clock.advance(0.99 * TTL)
            one.cache.expire()
            assert session == one.manager.cached(KEY)


async def test_idle_for_longer_than_the_ttl_asks_redis(redis_server: RedisServer) -> None:
    """Another instance may have seen the key meanwhile: then the id is kept. If nobody has, there is a new one."""
    async with Instance(redis_server) as one:
        session = await one.get(KEY)
        one.clock.advance(1.01 * TTL)
        assert one.manager.cached(KEY) is None
        assert session == await one.get(KEY)
        one.clock.advance(1.11 * TTL)
        redis_server.command("DEL", one.key(KEY))  # which its own clock does after that time
        assert session != await one.get(KEY)


async def test_redis_forgets_an_idle_key_by_itself(redis_server: RedisServer) -> None:
    """With a small ttl in real time: after 1.1 times it the key is gone, and the next id is another one."""
    async with Instance(redis_server, ttl=0.1) as one:
        session = await one.get(KEY)
        one.clock.advance(0.12)
        async with asyncio.timeout(5.0):
            while redis_server.command("EXISTS", one.key(KEY)):  # noqa: ASYNC110  a server is asked
                await asyncio.sleep(0.01)
        assert session != await one.get(KEY)


@pytest.mark.parametrize("seal", [None, SECRET])
@pytest.mark.parametrize(
    "damage",
    [
        ("SET", b"garbage"),
        ("SET", b""),
        ("SET", b"\x01" + bytes(12) + b"short"),
        ("LPUSH", b"1"),
        ("HSET", b"f", b"v"),
        ("SADD", b"1"),
    ],
)
async def test_what_is_no_session_is_replaced(
    redis_server: RedisServer, damage: tuple[bytes, ...], seal: str | None
) -> None:
    """Garbage and other types under the key: the request is served, and all agree on what is written."""
    async with Instance(redis_server, seal=seal) as one, Instance(redis_server, seal=seal) as two:
        redis_server.command(damage[0], one.key(KEY), *damage[1:])
        session = await one.get(KEY)
        assert session == await two.get(KEY)
        assert 0 < redis_server.command("PTTL", one.key(KEY)) <= 1.1 * TTL * 1000


async def test_value_of_another_secret_is_left_alone(redis_server: RedisServer) -> None:
    """In the middle of a rotation it is good for others: the key is served locally, the same by all who cannot read."""
    other = "another-secret-of-some-length"
    async with (
        Instance(redis_server, seal=other) as owner,
        Instance(redis_server, seal=SECRET) as one,
        Instance(redis_server, seal=SECRET) as two,
    ):
        theirs = await owner.get(KEY)
        value = redis_server.command("GET", owner.key(KEY))
        ours = await one.get(KEY)
        assert ours != theirs
        assert ours == await two.get(KEY)
        assert ("session", "unknown-key") in one.unreadable
        one.clock.advance(0.06 * TTL)
        assert ours == one.manager.cached(KEY)
        await one.sync.send_touches()
        assert (ours, value) == (one.manager.cached(KEY), redis_server.command("GET", owner.key(KEY)))


async def test_memory_is_bounded(redis_server: RedisServer) -> None:
    """Of three times as many keys as Limits(sessions=…) the bound is kept here, and the others keep their id."""
    async with Instance(redis_server, sessions=50) as one:
        ids = {b"%d" % number: await one.get(b"%d" % number) for number in range(150)}
        assert len(one.cache) == 50
        assert len(set(ids.values())) == 150
        for api_key, session in ids.items():
            assert session == await one.get(api_key)
        assert len(one.cache) == 50


async def test_flood_of_new_keys_does_not_fill_redis(redis_server: RedisServer) -> None:
    """Beyond the rate of new sessions ids stay local, equal on all instances; known ones are found all the same."""
    clock = ManualClock()
    async with (
        Instance(redis_server, clock=clock, new_sessions=10, ttl=36_000.0) as one,
        Instance(redis_server, clock=clock, new_sessions=10, ttl=36_000.0) as two,
    ):
        known = await two.get(b"known")
        ids = [await one.get(b"%d" % number) for number in range(300)]
        for number in range(1_000, 1_300):
            await two.get(b"%d" % number)
        size = redis_server.command("DBSIZE")
        assert 20 <= size <= 2 * (10 * 10 + 1)
        assert known == await one.get(b"known")
        await one.sync.send_touches()
        assert size == redis_server.command("DBSIZE")
        assert ids[-1] == await two.get(b"299")
        clock.advance(3.0)  # in the long run, so many a second
        for number in range(300, 400):
            await one.get(b"%d" % number)
        assert 20 <= redis_server.command("DBSIZE") - size <= 40


async def test_known_sessions_do_not_use_up_the_rate(redis_server: RedisServer) -> None:
    """A restarted instance sees thousands of keys for the first time that Redis has long known: none of them is new."""
    async with Instance(redis_server) as one, Instance(redis_server, secret=SECRET, new_sessions=1) as two:
        for number in range(30):
            session = await one.get(b"%d" % number)
            assert await two.get(b"%d" % number) == session
        assert await two.get(KEY) == await one.get(KEY)


async def test_no_api_key_is_in_redis_logs_or_reprs(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither its text nor a digest that could be tried out."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    try:
        async with Instance(redis_server) as one:
            request = asyncio.create_task(one.get(KEY))
            await asyncio.sleep(0)
            flight = next(iter(one.manager._first_sights._flights.values()))
            inside = [one.manager, one.manager._first_sights, one.manager._first_sights._flights, flight, flight._task]
            texts = [repr(part) for part in inside]
            await request
            one.clock.advance(0.06 * TTL)
            one.manager.cached(KEY)
            texts += [repr(part) for part in (one.manager._cache, one.sync, one.store)]
            keys = redis_server.command("KEYS", "*")
            texts += [repr(keys), *(repr(redis_server.command("GET", key)) for key in keys if b"session" in key)]
    finally:
        asyncio.get_running_loop().set_debug(False)
    assert len([key for key in keys if b"session" in key]) == 1
    assert [text for text in [*texts, caplog.text] if "0815" in text] == []
