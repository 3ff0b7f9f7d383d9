"""Scripts that wait for a connection are sent together, and each caller gets the reply of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmarks.counting import reads
from tests.looptime import LoopTime
from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import reason_of
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from tests.proxies import Proxy
    from tests.servers import RedisServer

Make = Any
COUNT = 300


def keys_of(number: int) -> list[bytes]:
    """Return the four keys of a token, with one hash tag."""
    return [b"{%d}:%b" % (number, kind) for kind in (b"token", b"lease", b"note", b"tomb")]


async def acquire(one: Any, number: int) -> Any:
    """Acquire the lease of a numbered token for an owner of that number."""
    return await one.guard.run_script("acquire", keys_of(number), (f"owner-{number}", 60_000, 0, ""))


def owner(server: RedisServer, number: int) -> bytes:
    """Return what Redis has in the lease of a numbered token."""
    value: bytes = server.command("GET", keys_of(number)[1])
    return value


@pytest.mark.parametrize("scheme", ["redis", pytest.param("redis+cluster", marks=needs_cluster_urls)])
async def test_many_scripts_take_few_round_trips(
    guarded: Make, redis_server: RedisServer, cluster: RedisServer, scheme: str
) -> None:
    """Three hundred tokens are leased over three connections, each to its own caller."""
    server = cluster if "cluster" in scheme else redis_server
    server.command("FLUSHALL")
    one = guarded(f"{scheme}://127.0.0.1:{server.port}", command_seconds=2.0)
    await one.call("GET", "{0}:token")
    before = reads(server)
    replies = await asyncio.gather(*(acquire(one, number) for number in range(COUNT)))
    assert reads(server) - before < COUNT / 4
    for number, reply in enumerate(replies):
        assert b"owner-%d:%b" % (number, reply[1]) == owner(server, number)
    assert 0 == one.limiter.under_way
    assert [] == one.failures


async def test_scripts_that_a_server_has_forgotten_are_sent_as_text(guarded: Make, redis_server: RedisServer) -> None:
    """As after SCRIPT FLUSH."""
    one = guarded(redis_server.url, command_seconds=2.0)
    await one.call("PING")
    redis_server.command("SCRIPT", "FLUSH")
    replies = await asyncio.gather(*(acquire(one, number) for number in range(20)))
    assert 20 == len(replies)
    assert [] == one.failures


async def test_one_script_that_fails_does_not_affect_the_others(guarded: Make, redis_server: RedisServer) -> None:
    """An error of one command, such as an argument that Redis does not take, is its own."""
    one = guarded(redis_server.url, connections=1, command_seconds=2.0)
    calls = [acquire(one, number) for number in range(6)]
    calls.insert(3, one.guard.run_script("acquire", keys_of(6), ("owner-6", "no number", 0, "")))
    done = await asyncio.gather(*calls, return_exceptions=True)
    failed = {number: each.reason for number, each in enumerate(done) if isinstance(each, RedisUnavailable)}
    assert {3: "response"} == failed
    assert [] == one.failures


async def test_refused_writes_of_a_batch_count_once(guarded: Make, redis_server: RedisServer) -> None:
    """All scripts of a server that is full fail for the same reason."""
    one = guarded(redis_server.url, connections=1, command_seconds=2.0)
    await one.call("PING")
    redis_server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        reasons = await asyncio.gather(*(reason_of(acquire(one, number)) for number in range(20)))
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", 0)
    assert {"full"} == set(reasons)
    assert one.failures in (["full"] * 2, ["full"])
    assert not one.guard.breaker.open


async def test_a_server_that_hangs_costs_each_caller_one_deadline(guarded: Make, proxy: Proxy) -> None:
    """Those that wait do not wait for much longer than those that were sent, and do not open the circuit."""
    one = guarded(proxy.url)
    await asyncio.gather(*(one.call("PING") for _ in range(3)))
    proxy.black_hole = True
    async with LoopTime() as waited:
        reasons = await asyncio.gather(*(reason_of(acquire(one, number)) for number in range(200)))
    assert waited.seconds < 0.6
    assert {"timeout", "busy"} >= set(reasons)
    assert not one.guard.breaker.open
    assert 0 == one.limiter.under_way


async def test_a_cancelled_caller_removes_only_itself(guarded: Make, redis_server: RedisServer) -> None:
    """The others of its batch get their replies."""
    one = guarded(redis_server.url, connections=1, command_seconds=2.0)
    tasks = [asyncio.create_task(acquire(one, number)) for number in range(30)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert 10 == sum(isinstance(each, asyncio.CancelledError) for each in done)
    assert 20 == sum(not isinstance(each, BaseException) for each in done)
    assert 0 == one.limiter.under_way


async def test_closing_releases_what_waits(guarded: Make, proxy: Proxy) -> None:
    """No caller waits for a closed client."""
    one = guarded(proxy.url, connections=1, command_seconds=30.0)
    await one.call("PING")
    proxy.black_hole = True
    tasks = [asyncio.create_task(acquire(one, number)) for number in range(5)]
    await asyncio.sleep(0.01)
    await one.guard.close()
    tasks[0].cancel()  # it was sent, and waits for its reply
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, RedisUnavailable) for each in done[1:])
