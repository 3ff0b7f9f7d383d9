"""Housekeeping shares everything again within 15 s, without any request."""

from __future__ import annotations

import asyncio
import logging

import pytest
import redis.asyncio

from tests.brokers import runtime_of
from tests.redis.waiting import passes
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

SECRET = "a-secret-of-some-length"
KEYS = [f"sk-live-{number}" for number in range(50)]


def shared_provider() -> StaticToken:
    """Return a provider whose tokens are shared."""
    return StaticToken(lambda: "t", credential_id="c")


def broker(server: RedisServer, clock: ManualClock, **limits: float) -> TokenBroker:
    """Make a broker with Redis."""
    return TokenBroker(
        {"crm": shared_provider()},
        redis=server.url,
        secret_key=SECRET,
        clock=clock,
        limits=Limits(**limits),  # type: ignore[arg-type]
    )


def named(server: RedisServer, kind: bytes) -> int:
    """Return the number of keys of one kind in Redis."""
    return sum(key.endswith(kind) for key in server.command("KEYS", "*"))


@pytest.mark.parametrize("fault", ["emptied", "restarted"])
async def test_everything_is_uploaded_again_within_15_s(private_redis: RedisServer, fault: str) -> None:
    """After FLUSHALL, or a restart without data: tokens, and sessions with the same ids."""
    clock = ManualClock()
    async with broker(private_redis, clock, command_seconds=1.0) as one:
        ids = [await one.session_id(key) for key in KEYS]
        await one.token("crm")
        if fault == "emptied":
            private_redis.command("FLUSHALL")
        else:
            private_redis.restart()
        await passes(clock, lambda: named(private_redis, b":session") == 50, within=15)
        await passes(clock, lambda: named(private_redis, b":token") == 1, within=1)
        async with broker(private_redis, clock, command_seconds=1.0) as two:
            assert ids == [await two.session_id(key) for key in KEYS]


async def test_what_was_made_during_an_outage_is_counted_and_uploaded(private_redis: RedisServer) -> None:
    """The status has the start of the outage, its reason, and what is unshared; after it, nothing is unshared."""
    clock = ManualClock()
    async with broker(private_redis, clock, command_seconds=0.5) as one:
        assert ("up", 0) == (one.status().shared, one.status().unshared)
        private_redis.kill()
        clock.advance(10)
        for number in range(5):
            await one.session_id(f"new-{number}")
        await one.token("crm")
        status = one.status()
        assert ("down", clock.time()) == (status.shared, status.shared_since)
        assert status.shared_error in {"refused", "reset"}  # of a new connection, or of one that was open
        assert (1, 5, 6) == (status.unshared_tokens, status.unshared_sessions, status.unshared)
        private_redis.restart()
        await passes(clock, lambda: one.status().shared == "up" and not one.status().unshared, within=15)
        assert (5, 1) == (named(private_redis, b":session"), named(private_redis, b":token"))


async def test_a_token_sealed_by_an_old_secret_is_sealed_again(redis_server: RedisServer) -> None:
    """The comparison of tokens in use does it, and keeps the time to live."""
    clock = ManualClock()
    new = "another-secret-of-length"
    options = {"redis": redis_server.url, "name_key": SECRET, "clock": clock, "limits": Limits(command_seconds=2.0)}
    async with TokenBroker({"crm": shared_provider()}, secret_key=SECRET, **options) as one:  # type: ignore[arg-type]
        await one.token("crm")
    (key,) = redis_server.command("KEYS", "*:token")
    before, left = redis_server.command("GET", key), redis_server.command("PTTL", key)
    async with TokenBroker({"crm": shared_provider()}, secret_key=[new, SECRET], **options) as two:  # type: ignore[arg-type]
        await two.token("crm")
        for _ in range(2):
            await two.token("crm")
            clock.advance(31)
            entry = next(iter(two._data.tokens))
            await runtime_of(two).token_sync.compare(entry)
    assert before != redis_server.command("GET", key)
    assert 0 < redis_server.command("PTTL", key) <= left


async def test_a_broker_closes_in_each_turn_of_the_loop(redis_server: RedisServer) -> None:
    """Also with a client that swallows the cancellation of its command, as redis-py can on Python 3.11."""
    clock = ManualClock()
    async with redis.asyncio.Redis(port=redis_server.port, socket_timeout=5.0) as client:
        for turns in range(25):
            async with asyncio.timeout(20):
                async with TokenBroker({}, redis=client, secret_key=SECRET, clock=clock):
                    clock.advance(6)  # the epoch marker is due to be read
                    for _ in range(turns):
                        await asyncio.sleep(0)


async def test_warnings_about_options_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A list of secrets without a `name_key` is logged when the broker opens first, and not when it opens again."""
    caplog.set_level(logging.WARNING, "tokenmw")
    for ring, key, lines in (([SECRET, SECRET * 2], None, 1), ([SECRET, SECRET * 2], SECRET, 0), ([SECRET], None, 0)):
        one = TokenBroker({}, secret_key=ring, name_key=key)
        for _ in range(2):
            async with one:
                pass
        assert lines == sum("Give name_key= the secret that was used first" in text for text in caplog.messages)
        assert lines == len(caplog.messages)
        assert SECRET not in caplog.text
        caplog.clear()
