"""One API key has one session id on all instances, for one round trip at first sight."""

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
    """Two instances ask Redis once each, get the same id, and then serve it from memory."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        await one.get(b"loads the script")
        reset_statistics(redis_server)
        session = await one.get(KEY)
        assert sent(redis_server) == {"evalsha": 1}
        assert session == await two.get(KEY)
        assert sent(redis_server) == {"evalsha": 2}
        for _ in range(100):
            assert session == await one.get(KEY) == one.manager.cached(KEY) == two.manager.cached(KEY)
        await one.sync.send_touches()
        assert sent(redis_server) == {"evalsha": 2}
        assert UUID(session).version == 8
        assert session != await one.get(KEY + b"1")


async def test_a_thousand_first_requests_of_one_key_are_one_command(redis_server: RedisServer) -> None:
    """They share one flight, and the cancellation of half of them changes nothing."""
    async with Instance(redis_server) as one:
        await one.get(b"loads the script")
        reset_statistics(redis_server)
        requests = [asyncio.create_task(one.get(KEY)) for _ in range(1_000)]
        await asyncio.sleep(0)
        for request in requests[::2]:
            request.cancel()
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert len(set(results[1::2])) == 1
        assert {asyncio.CancelledError} == {type(result) for result in results[::2]}
        assert sent(redis_server) == {"evalsha": 1}
        assert len(one.first_sights) == 0


async def test_idle_for_less_than_the_ttl_keeps_the_id(redis_server: RedisServer) -> None:
    """With 0.99 of the TTL between any two requests the id stays; Redis stores it for 1.3 times the TTL."""
    async with Instance(redis_server) as one:
        session = await one.get(KEY)
        assert 1.29 * TTL * 1000 < redis_server.command("PTTL", one.key(KEY)) <= 1.3 * TTL * 1000
        for _ in range(5):
            one.clock.advance(0.99 * TTL)
            one.cache.expire()
            assert session == one.manager.cached(KEY)


@pytest.mark.parametrize("new", ["derived", "random"])
async def test_idle_for_longer_than_the_ttl_asks_redis(redis_server: RedisServer, new: str) -> None:
    """The id is kept if Redis still has it, because another instance may have used it.

    Otherwise there is a new one, or with derived ids the same again.
    """
    async with Instance(redis_server, new=new) as one:
        session = await one.get(KEY)
        one.clock.advance(1.01 * TTL)
        assert one.manager.cached(KEY) is None
        assert session == await one.get(KEY)
        one.clock.advance(1.31 * TTL)
        redis_server.command("DEL", one.key(KEY))  # as Redis's own clock does after that time
        assert (new == "derived") is (session == await one.get(KEY))


async def test_an_idle_session_expires_in_redis(redis_server: RedisServer) -> None:
    """After 1.3 times a small TTL in real time the key does not exist, and the next id is a new one if it is random."""
    async with Instance(redis_server, ttl=0.1, new="random") as one:
        session = await one.get(KEY)
        one.clock.advance(0.12)
        async with asyncio.timeout(5.0):
            while redis_server.command("EXISTS", one.key(KEY)):  # noqa: ASYNC110  a server is polled
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
async def test_a_value_that_is_not_a_session_is_replaced(
    redis_server: RedisServer, damage: tuple[bytes, ...], seal: str | None
) -> None:
    """With garbage or another type under the key, requests are served, and all agree on the new id."""
    async with Instance(redis_server, seal=seal) as one, Instance(redis_server, seal=seal) as two:
        redis_server.command(damage[0], one.key(KEY), *damage[1:])
        session = await one.get(KEY)
        assert session == await two.get(KEY)
        assert 0 < redis_server.command("PTTL", one.key(KEY)) <= 1.3 * TTL * 1000


async def test_a_session_sealed_by_another_secret_is_left_alone(redis_server: RedisServer) -> None:
    """Instances with that secret use it; those without it all serve the same derived id."""
    other = "another-secret-of-some-length"
    async with (
        Instance(redis_server, seal=other, new="random") as owner,
        Instance(redis_server, seal=SECRET) as one,
        Instance(redis_server, seal=SECRET) as two,
    ):
        theirs = await owner.get(KEY)
        value = redis_server.command("GET", owner.key(KEY))
        ours = await one.get(KEY)
        assert ours != theirs
        assert ours == await two.get(KEY)
        assert ("session", "unknown-key") in one.unreadable
        one.clock.advance(0.26 * TTL)
        assert ours == one.manager.cached(KEY)
        await one.sync.send_touches()
        assert (ours, value) == (one.manager.cached(KEY), redis_server.command("GET", owner.key(KEY)))


async def test_memory_is_bounded(redis_server: RedisServer) -> None:
    """With three times as many keys as `Limits(sessions=…)`, the cache has that many, and all keys keep their ids."""
    async with Instance(redis_server, sessions=50) as one:
        ids = {b"%d" % number: await one.get(b"%d" % number) for number in range(150)}
        assert len(one.cache) == 50
        assert len(set(ids.values())) == 150
        for api_key, session in ids.items():
            assert session == await one.get(api_key)
        assert len(one.cache) == 50


async def test_a_flood_of_new_keys_does_not_fill_redis(redis_server: RedisServer) -> None:
    """Beyond `Limits(new_sessions=…)` ids stay local, the same on all instances; stored ones are still found."""
    clock = ManualClock()
    async with (
        Instance(redis_server, clock=clock, new_sessions=10, ttl=36_000.0) as one,
        Instance(redis_server, clock=clock, new_sessions=10, ttl=36_000.0) as two,
    ):
        stored = await two.get(b"known")
        ids = [await one.get(b"%d" % number) for number in range(300)]
        for number in range(1_000, 1_300):
            await two.get(b"%d" % number)
        size = redis_server.command("DBSIZE")
        assert 20 <= size <= 2 * (10 * 10 + 1)
        assert stored == await one.get(b"known")
        await one.sync.send_touches()
        assert size == redis_server.command("DBSIZE")
        assert ids[-1] == await two.get(b"299")
        clock.advance(3.0)  # three seconds of permits
        for number in range(300, 400):
            await one.get(b"%d" % number)
        assert 20 <= redis_server.command("DBSIZE") - size <= 40


@pytest.mark.parametrize("new", ["derived", "random"])
@pytest.mark.parametrize("seal", [None, SECRET])
async def test_sessions_that_redis_has_do_not_use_permits(
    redis_server: RedisServer, seal: str | None, new: str
) -> None:
    """A restarted instance sees many keys for the first time, but they are not new in Redis."""
    async with (
        Instance(redis_server, new=new, seal=seal) as one,
        Instance(redis_server, new=new, seal=seal, new_sessions=1) as two,
    ):
        for number in range(30):
            session = await one.get(b"%d" % number)
            assert await two.get(b"%d" % number) == session
        assert await two.get(KEY) == await one.get(KEY)


async def test_no_api_key_is_in_redis_logs_or_reprs(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No log line, `repr` or Redis key holds it, not even in asyncio's debug mode."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    try:
        async with Instance(redis_server) as one:
            request = asyncio.create_task(one.get(KEY))
            await asyncio.sleep(0)
            sights = one.first_sights
            inside = [one.manager, sights, sights._sights, sights._waiting, sights._running]
            texts = [repr(part) for part in inside]
            await request
            one.clock.advance(0.26 * TTL)
            one.manager.cached(KEY)
            texts += [repr(part) for part in (one.cache, one.sync, one.store)]
            keys = redis_server.command("KEYS", "*")
            texts += [repr(keys), *(repr(redis_server.command("GET", key)) for key in keys if b"session" in key)]
    finally:
        asyncio.get_running_loop().set_debug(False)
    assert len([key for key in keys if b"session" in key]) == 1
    assert [text for text in [*texts, caplog.text] if "0815" in text] == []
