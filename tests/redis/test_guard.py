"""What stands between a request and Redis."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis

from tests.looptime import LoopTime
from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import word
from tests.servers import RedisServer
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.redis.errors import classify
from tokenmw.redis.guard import Guard

if TYPE_CHECKING:
    from tests.proxies import Proxy


Make = Any


async def test_a_command_takes_its_deadline_at_most(guarded: Make, proxy: Proxy) -> None:
    """From pool to reply, connecting included, and again for the next one."""
    one = guarded(proxy.url)
    proxy.black_hole = True
    for _ in range(2):
        began = time.monotonic()
        async with LoopTime() as waited:
            assert await word(one.call("PING")) == "timeout"
        assert 0.14 < time.monotonic() - began
        assert waited.seconds < 0.3


@pytest.mark.parametrize("scheme", ["redis", pytest.param("redis+cluster", marks=needs_cluster_urls)])
async def test_many_commands_share_few_connections(
    guarded: Make, redis_server: RedisServer, cluster: RedisServer, scheme: str
) -> None:
    """Three hundred at once wait their turn; a cluster's pool, which does not let wait, is not asked for more."""
    server = cluster if "cluster" in scheme else redis_server
    one = guarded(f"{scheme}://127.0.0.1:{server.port}", connections=4, command_seconds=2.0)
    server.command("CONFIG", "RESETSTAT")
    replies = await asyncio.gather(*(one.call("SET", f"k{number}", number) for number in range(300)))
    assert len(replies) == 300
    assert one.failures == []
    opened = int(server.command("INFO", "stats").split(b"total_connections_received:")[1].split(b"\r")[0])
    assert opened <= 4 + 3  # and the ones that ask here


async def test_too_many_commands_are_refused_at_once_and_not_counted(guarded: Make, proxy: Proxy) -> None:
    """Our own load is no sign of a server that is away."""
    one = guarded(proxy.url, commands=5)
    proxy.black_hole = True
    waiting = [asyncio.create_task(one.call("PING")) for _ in range(5)]
    await asyncio.sleep(0)
    async with LoopTime() as waited:
        assert [await word(one.call("PING")) for _ in range(100)] == ["busy"] * 100
    assert waited.seconds < 0.1
    assert one.failures == []
    assert [await word(task) for task in waiting] == ["timeout"] * 5
    proxy.black_hole = False
    proxy.cut()
    assert not one.guard.breaker.open


async def test_who_found_no_free_connection_has_learnt_nothing_of_the_server(guarded: Make, proxy: Proxy) -> None:
    """Only those that reached it count."""
    one = guarded(proxy.url, connections=1)
    proxy.black_hole = True
    words = await asyncio.gather(*(word(one.call("PING")) for _ in range(10)))
    # Those whose turn comes in the moment of their own deadline are told "timeout" as well.
    assert "busy" in words
    assert words.count("busy") + len(one.failures) == 10
    assert one.guard.breaker._failures == 1


async def test_no_reply_is_ever_given_to_another_command(guarded: Make, redis_server: RedisServer) -> None:
    """Cancelled at any moment, hundreds of times: the next command gets its own value, and the pool is whole."""
    one = guarded(redis_server.url, connections=3, command_seconds=5.0)
    for number in range(50):
        redis_server.command("SET", f"k{number}", f"value {number}")
    await one.call("PING")

    async def get(number: int) -> None:
        assert await one.call("GET", f"k{number}") == b"value %d" % number

    chance = random.Random(7)
    for _ in range(100):
        tasks = [asyncio.create_task(get(chance.randrange(50))) for _ in range(9)]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        doomed = chance.sample(tasks, 5)
        for task in doomed:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in done if each is not None and not isinstance(each, asyncio.CancelledError)] == []
    assert one.failures == []
    assert one.guard._seats.under_way == 0
    assert len(one.client.connection_pool._in_use_connections) == 0
    assert len(one.client.connection_pool._available_connections) <= 3


async def test_late_replies_are_not_given_to_the_next_command(guarded: Make, proxy: Proxy) -> None:
    """A command that timed out takes its connection with it."""
    one = guarded(proxy.url, connections=1, command_seconds=0.05)
    assert await one.guard.attempt(lambda: one.client.echo("first"), seconds=2) == b"first"
    proxy.latency = 0.04
    assert await word(one.guard.attempt(lambda: one.client.echo("late"))) == "timeout"
    assert await one.guard.attempt(lambda: one.client.echo("next"), seconds=2) == b"next"


async def test_a_cancelled_caller_counts_nothing(guarded: Make, proxy: Proxy) -> None:
    """A caller that hangs up says nothing of Redis."""
    one = guarded(proxy.url)
    proxy.black_hole = True
    for _ in range(5):
        task = asyncio.create_task(one.call("PING"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert one.failures == []


async def test_a_loop_that_stalls_again_and_again_counts_nothing(guarded: Make, redis_server: RedisServer) -> None:
    """When our own loop stood still, replies look late that were not; also when it does where it gave time back."""
    one = guarded(redis_server.url, command_seconds=0.03)
    await one.guard.attempt(one.client.ping, seconds=1)
    for _ in range(3):
        task = asyncio.create_task(one.guard.attempt(lambda: one.client.blpop(["nothing"], timeout=0)))
        while not task.done():
            await asyncio.sleep(0.002)
            time.sleep(0.1)  # noqa: ASYNC251  the fault of the program that this is about
        assert await word(task) == "timeout"
    assert one.failures == []


async def test_a_stall_is_no_excuse_for_a_server_that_does_not_answer_after_it(
    guarded: Make, redis_server: RedisServer
) -> None:
    """Else a program whose loop stands still now and then would never find out that Redis is away."""
    one = guarded(redis_server.url, command_seconds=0.2)
    await one.guard.attempt(one.client.ping, seconds=1)
    for _ in range(3):  # the machine may stand still for a second time in one of them
        task = asyncio.create_task(one.guard.attempt(lambda: one.client.blpop(["nothing"], timeout=0)))
        await asyncio.sleep(0.01)
        time.sleep(0.5)  # noqa: ASYNC251  the fault of the program that this is about
        assert await word(task) == "timeout"
    assert "timeout" in one.failures


async def test_a_reply_that_came_while_the_loop_stood_still_is_taken(guarded: Make, redis_server: RedisServer) -> None:
    """The deadline is over in the turn in which the reply is found; the reply counts, and not the deadline."""
    one = guarded(redis_server.url, command_seconds=0.4)
    await one.guard.attempt(one.client.ping, seconds=10)
    for stall in (0.5, 0.7):
        task = asyncio.create_task(one.call("ECHO", "it came in time"))
        for _ in range(10):  # until it is sent
            await asyncio.sleep(0)
        time.sleep(stall)  # noqa: ASYNC251  the fault of the program that this is about
        assert await task == b"it came in time"
    assert one.failures == []
    assert not one.guard.doubtful


@pytest.mark.parametrize("waits", [False, True])
async def test_a_user_pool_that_is_empty_counts_nothing(redis_server: RedisServer, *, waits: bool) -> None:
    """Whether it raises at once or after its own waiting."""
    options: dict[str, Any] = {"port": redis_server.port, "max_connections": 1}
    pool: Any = BlockingConnectionPool(timeout=0.01, **options) if waits else ConnectionPool(**options)
    client: Any = Redis(connection_pool=pool)
    guard = Guard(limits=Limits(command_seconds=1.0), clock=SYSTEM_CLOCK)
    connection = await pool.get_connection()
    for _ in range(3):
        assert await word(guard.run(client.ping)) == "busy"
    assert not guard.breaker.open
    await pool.release(connection)
    await pool.aclose()


class Unspeakable(Exception):
    """One of a program's, with a slip in what would tell its text."""

    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.OutOfMemoryError("command not allowed"), "full"),
        (exceptions.ReadOnlyError("You can't write"), "readonly"),
        (exceptions.BusyLoadingError("loading"), "loading"),
        (exceptions.AuthenticationError("invalid password"), "auth"),
        (exceptions.NoPermissionError("no"), "permission"),
        (exceptions.MaxConnectionsError(), "busy"),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF"), "disk"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), "replicas"),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), "script"),
        (exceptions.ResponseError("The user executing the script can't run this command"), "permission"),
        (exceptions.ResponseError("ACL failure in script: User default has no permissions"), "permission"),
        (exceptions.ResponseError("Error running script (call to f_0): @user_script:9: -OOM command not"), "full"),
        (exceptions.ResponseError("Error running script (call to f_0): @user_script:9: READONLY You"), "readonly"),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), "response"),
        (exceptions.RedisClusterException("cannot be connected"), "cluster"),
        (exceptions.SlotNotCoveredError("slot"), "cluster"),
        (exceptions.ClusterDownError("The cluster is down"), "cluster"),
        (exceptions.ConnectionError("Connection closed by server."), "connection"),
        (RuntimeError("Event loop is closed"), "client"),
        (KeyError("expired credentials"), "client"),
        (Unspeakable(), "client"),
        (ConnectionRefusedError(), "connection"),
        (TimeoutError(), "timeout"),
        (exceptions.InvalidResponse(), "error"),
    ],
)
async def test_every_failure_has_a_short_word(error: Exception, expected: str) -> None:
    """And none escapes as itself: requests go on without Redis, whatever it says."""

    async def fail() -> None:
        raise error

    assert classify(error) == expected
    assert await word(Guard(limits=Limits(), clock=SYSTEM_CLOCK).run(fail)) == expected
