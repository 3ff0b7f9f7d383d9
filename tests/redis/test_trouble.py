"""What a guard makes of signs of trouble: mark_unshared, and refused writes beside reads that go well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis import exceptions

from tests.redis.waiting import until, word
from tests.servers import RedisServer
from tokenmw.limits import Limits
from tokenmw.redis.guard import Guard
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from tests.proxies import Proxy

Make = Any


async def test_a_server_is_in_doubt_before_the_first_reply_is_missing(guarded: Make, proxy: Proxy) -> None:
    """From half of a deadline on, so that what is sent meanwhile is prepared for a reply that does not come."""
    one = guarded(proxy.url, command_seconds=1.0)
    await one.guard.attempt(one.client.ping, seconds=10)
    assert not one.guard.doubtful
    proxy.black_hole = True
    waiting = asyncio.create_task(word(one.call("PING")))
    await until(lambda: one.guard.doubtful, within=10)
    assert one.failures == []
    assert await waiting == "timeout"
    assert one.guard.doubtful


async def test_doubt_ends_ten_seconds_after_the_last_trouble() -> None:
    """Not with the first success: what comes and goes is not trusted."""
    clock = ManualClock()
    guard = Guard(limits=Limits(), clock=clock)

    async def fail() -> None:
        raise exceptions.ConnectionError("gone")

    async def work() -> None:
        pass

    assert not guard.doubtful
    for _ in range(2):
        await word(guard.run(fail))
        await guard.run(work)
        clock.advance(9.9)
        assert guard.doubtful
    clock.advance(0.2)
    assert not guard.doubtful


async def test_a_full_server_that_answers_reads_is_out(guarded: Make, private_redis: RedisServer) -> None:
    """Reads go well in between, and prove nothing; they do not end the row of refusals, and neither do they close."""
    one = guarded(private_redis.url, command_seconds=2.0)
    private_redis.command("SET", "a", "1")
    recovered: list[None] = []
    one.guard.on_recovery = lambda: recovered.append(None)
    private_redis.command("CONFIG", "SET", "maxmemory", "1")
    for _ in range(3):
        assert not one.guard.breaker.open
        writing = asyncio.create_task(word(one.call("SET", "b", "x")))
        assert await one.call("GET", "a") == b"1"
        assert await writing == "full"
    assert one.guard.breaker.open
    assert await one.guard.attempt(lambda: one.client.get("a")) == b"1"  # one that was under way
    assert one.guard.breaker.open
    assert recovered == []


async def test_a_refused_write_is_over_with_a_write(guarded: Make, private_redis: RedisServer) -> None:
    """One that was taken ends the row; a bound that is touched now and then is no outage."""
    one = guarded(private_redis.url, command_seconds=2.0)
    for _ in range(3):
        private_redis.command("CONFIG", "SET", "maxmemory", "1")
        for _ in range(2):
            assert await word(one.call("SET", "b", "x")) == "full"
        private_redis.command("CONFIG", "SET", "maxmemory", "0")
        await one.guard.run(lambda: one.client.set("b", "x"), writes=True)
    assert not one.guard.breaker.open
