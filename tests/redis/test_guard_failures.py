"""How a guard judges a server: when a reply may be lost, and refused writes between successful reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis import exceptions

from tests.redis.waiting import reason_of, until
from tests.servers import RedisServer
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from tests.proxies import Proxy

Make = Any


async def test_reply_may_be_lost_after_half_of_a_deadline(guarded: Make, proxy: Proxy) -> None:
    """Commands that are sent before the first timeout are prepared for a lost reply."""
    one = guarded(proxy.url, command_seconds=1.0)
    await one.guard.attempt(one.client.ping, seconds=10)
    assert not one.guard.reply_may_be_lost
    proxy.black_hole = True
    waiting = asyncio.create_task(reason_of(one.call("PING")))
    await until(lambda: one.guard.reply_may_be_lost, within=10)
    assert one.failures == []
    assert await waiting == "timeout"
    assert one.guard.reply_may_be_lost


async def test_reply_may_be_lost_for_ten_seconds_after_a_failure(guarded: Make) -> None:
    """A success does not shorten that: a server that fails now and then is not trusted."""
    clock = ManualClock()
    guard = guarded("redis://127.0.0.1:1", clock=clock).guard

    async def fail() -> None:
        raise exceptions.ConnectionError("gone")

    async def work() -> None:
        pass

    assert not guard.reply_may_be_lost
    for _ in range(2):
        await reason_of(guard.run(fail))
        await guard.run(work)
        clock.advance(9.9)
        assert guard.reply_may_be_lost
    clock.advance(0.2)
    assert not guard.reply_may_be_lost


async def test_full_server_that_serves_reads_is_unavailable(guarded: Make, private_redis: RedisServer) -> None:
    """Reads between refused writes neither reset the count nor close the circuit."""
    one = guarded(private_redis.url, command_seconds=2.0)
    private_redis.command("SET", "a", "1")
    private_redis.command("CONFIG", "SET", "maxmemory", "1")
    for _ in range(3):
        assert not one.guard.breaker.open
        writing = asyncio.create_task(reason_of(one.call("SET", "b", "x")))
        assert await one.call("GET", "a") == b"1"
        assert await writing == "full"
    assert one.guard.breaker.open
    assert await one.guard.attempt(lambda: one.client.get("a")) == b"1"  # as one that was under way
    assert one.guard.breaker.open
    assert one.unavailable == ["full"]
    assert one.answers_again == 0


async def test_successful_write_resets_the_count_of_refused_writes(guarded: Make, private_redis: RedisServer) -> None:
    """A memory bound that is reached now and then is no outage."""
    one = guarded(private_redis.url, command_seconds=2.0)
    for _ in range(3):
        private_redis.command("CONFIG", "SET", "maxmemory", "1")
        for _ in range(2):
            assert await reason_of(one.call("SET", "b", "x")) == "full"
        private_redis.command("CONFIG", "SET", "maxmemory", "0")
        await one.guard.run(lambda: one.client.set("b", "x"), writes=True)
    assert not one.guard.breaker.open
    assert one.answers_again == 3


async def test_cancellation_by_the_client_does_not_end_the_probes(guarded: Make, private_redis: RedisServer) -> None:
    """A client that raises a CancelledError of its own fails one probe; the circuit closes with a later one."""
    one = guarded(private_redis.url, command_seconds=0.3)
    evalsha, raised = one.client.evalsha, 0

    async def cancelled(*args: Any) -> Any:
        nonlocal raised
        if raised < 2:
            raised += 1
            raise asyncio.CancelledError
        return await evalsha(*args)

    async def fail() -> None:
        raise exceptions.ConnectionError("gone")

    one.client.evalsha = cancelled
    for _ in range(3):
        await reason_of(one.guard.run(fail))
    assert one.guard.breaker.open
    await until(lambda: not one.guard.breaker.open, within=10)
    assert raised == 2


async def test_cancellation_by_the_client_is_a_failure_of_one_command(guarded: Make, redis_server: RedisServer) -> None:
    """Nobody has cancelled the task; one in the background would end without a trace, and never be started again."""
    one = guarded(redis_server.url)

    async def cancelled() -> None:
        raise asyncio.CancelledError

    assert await reason_of(one.guard.run(cancelled)) == "client"
    assert one.failures == ["client"]


async def test_a_command_of_an_outage_that_fails_after_it_is_not_logged_apart(guarded: Make) -> None:
    """A batch in the background may take longer than the outage; one that begins afterwards is logged."""
    clock = ManualClock()
    one = guarded("redis://127.0.0.1:1", clock=clock)
    guard, error = one.guard, exceptions.TimeoutError()
    await guard.close()  # no probe runs
    began = clock.monotonic()
    guard.failed(error, began=began, trips=True)
    clock.advance(1)
    guard.breaker.close()
    guard.failed(error, began=began)
    assert 0 == one.answers_again
    guard.failed(error, began=clock.monotonic())
    guard.breaker.succeeded(wrote=False)
    guard._failures.answers()
    assert 1 == one.answers_again
