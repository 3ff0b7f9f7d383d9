"""API keys of any length: local maps keep digests of long ones, and memory is bounded in bytes."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest

from tests.servers import RedisServer
from tests.sessions.instance import TTL, Instance
from tokenmw import Limits, TokenBroker
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.sessions.cache import LONGEST_KEPT, SessionCache, local_key
from tokenmw.sessions.derive import SessionIds

LONGEST = b"k" * 4_096  # the longest key that `APIKeySource` accepts by default
KEYS = [b"k" * 64, b"k" * 65, b"k" * 164, LONGEST]
SESSIONS = 1_000
BYTES = 600  # for each session, with everything that refers to it


@pytest.mark.parametrize("api_key", KEYS, ids=len)
async def test_a_key_of_any_length_has_one_id(redis_server: RedisServer, api_key: bytes) -> None:
    """It is the same for all instances, after touches, uploads and resets."""
    async with Instance(redis_server) as one, Instance(redis_server) as two:
        session = await one.get(api_key)
        assert session == one.manager.cached(api_key) == one.cache.use(api_key) == await two.get(api_key)
        redis_server.command("FLUSHALL")
        one.clock.advance(0.251 * TTL)
        assert session == one.manager.cached(api_key)
        await one.sync.send_touches()
        assert 1 == redis_server.command("EXISTS", one.key(api_key))
        redis_server.command("FLUSHALL")
        one.sync.begin_reupload()
        await one.sync.send_reupload()
        assert 1 == redis_server.command("EXISTS", one.key(api_key))
        new = await one.manager.reset(api_key)
        assert new == one.manager.cached(api_key) != session
        two.clock.advance(0.251 * TTL)
        two.manager.cached(api_key)
        await two.sync.send_touches()
        assert new == two.manager.cached(api_key)
        assert 1 == len(one.cache) == len(two.cache)


def test_no_api_key_equals_the_local_key_of_a_long_one() -> None:
    """A local key with a digest is not UTF-8, and API keys are, so no caller can send one and get the other's id."""
    with pytest.raises(UnicodeDecodeError):
        # Digests of text that are UTF-8 by chance are rare; what precedes them must not be.
        local_key(b"k" * 65)[:-32].decode()


@pytest.mark.parametrize("api_key", KEYS, ids=len)
async def test_without_redis_a_key_of_any_length_is_uploaded_later(private_redis: RedisServer, api_key: bytes) -> None:
    """What was derived, or reset, during an outage reaches Redis under the same key as from any other instance."""
    async with Instance(private_redis, command_seconds=0.3) as one, Instance(private_redis) as two:
        private_redis.kill()
        await one.get(api_key)
        new = await one.manager.reset(api_key)
        private_redis.restart()
        async with asyncio.timeout(20.0):
            while one.sync.touches:
                try:
                    await one.sync.send_touches()
                except RedisUnavailable:
                    await asyncio.sleep(0.05)
        assert new == await two.get(api_key)


def test_a_digest_is_no_api_key() -> None:
    """A key that is kept is itself up to 64 bytes long, and a digest is longer, so no key has the entry of another."""
    assert all(local_key(key) is key for key in (b"", b"k", b"k" * LONGEST_KEPT))
    digests = {local_key(key) for key in (*KEYS[1:], b"k" * 66, *(local_key(key) for key in KEYS[1:]))}
    assert 7 == len(digests)
    assert {LONGEST_KEPT + 1} == {len(digest) for digest in digests}


async def test_no_local_map_keeps_a_long_key(redis_server: RedisServer) -> None:
    """Neither the cache nor the queue of touches nor the list of a reupload refers to it."""
    async with Instance(redis_server) as one:
        await one.get(b"k" * 4_096)
        one.clock.advance(0.251 * TTL)
        one.manager.cached(b"k" * 4_096)
        one.sync.begin_reupload()
        keys = [*one.cache, *one.sync._queue, *one.sync._reupload]
    assert [65] * 3 == [len(key) for key in keys]


@pytest.mark.parametrize("count", [3_000, 30_000])
def test_a_session_takes_300_bytes(count: int) -> None:
    """With an API key of 27 bytes and everything that refers to it, when each was used again at a time of its own."""
    cache = SessionCache(ttl=TTL, limits=Limits(sessions=count), clock=SYSTEM_CLOCK)
    ids = SessionIds("a-secret-of-some-length")
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            key = b"sk-%024d" % number
            cache.add(key, ids.derive(key), shared=True)
        for number in range(count):
            assert cache.use(b"sk-%024d" % number)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len({id(entry.used) for entry in cache.entries.values()}) > 0.9 * count
    assert taken <= 300 * count


@pytest.mark.campaign
async def test_memory_is_bounded_in_bytes(redis_server: RedisServer) -> None:
    """A full cache of the longest keys, each queued for a touch, takes a few hundred bytes for each session."""
    limits = Limits(sessions=SESSIONS, touches=SESSIONS, command_seconds=5.0)
    async with TokenBroker({}, redis=redis_server.url, secret_key="a-secret-of-some-length", limits=limits) as broker:
        await broker.session_id("opens the connections")
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(2 * SESSIONS):
                await broker.session_id(b"%04096d" % number)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert SESSIONS == broker.status().sessions
    assert taken < BYTES * SESSIONS
