"""Commands through a guard: bounded in time and number, and never given the reply of another one."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis

from tests.looptime import LoopTime
from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import reason_of
from tests.servers import RedisServer
from tokenmw.redis.errors import classify

if TYPE_CHECKING:
    from tests.proxies import Proxy


Make = Any


async def test_command_takes_its_deadline_at_most(guarded: Make, proxy: Proxy) -> None:
    """The deadline includes connecting; the next command has it again."""
    one = guarded(proxy.url)
    proxy.black_hole = True
    for _ in range(2):
        began = time.monotonic()
        async with LoopTime() as waited:
            assert await reason_of(one.call("PING")) == "timeout"
        assert 0.14 < time.monotonic() - began
        assert waited.seconds < 0.3


async def test_deadline_starts_again_when_the_connection_is_made(guarded: Make, proxy: Proxy) -> None:
    """A command has its whole time although connecting has taken a part of it, and only what is left without that."""
    one = guarded(proxy.url, command_seconds=0.4)
    proxy.connect_delay = 0.25

    async def slow() -> None:
        await one.client.ping()
        await asyncio.sleep(0.3)

    await one.guard.run(slow)
    assert one.failures == []


@pytest.mark.parametrize("scheme", ["redis", pytest.param("redis+cluster", marks=needs_cluster_urls)])
async def test_many_commands_share_few_connections(
    guarded: Make, redis_server: RedisServer, cluster: RedisServer, scheme: str
) -> None:
    """Three hundred concurrent commands wait for their turn, also in a cluster, whose pools would raise."""
    server = cluster if "cluster" in scheme else redis_server
    one = guarded(f"{scheme}://127.0.0.1:{server.port}", connections=4, command_seconds=2.0)
    server.command("CONFIG", "RESETSTAT")
    replies = await asyncio.gather(*(one.call("SET", f"k{number}", number) for number in range(300)))
    assert len(replies) == 300
    assert one.failures == []
    opened = int(server.command("INFO", "stats").split(b"total_connections_received:")[1].split(b"\r")[0])
    assert opened <= 4 + 3  # three are of this test


async def test_too_many_commands_are_refused_at_once_and_not_counted(guarded: Make, proxy: Proxy) -> None:
    """The load of this process says nothing of the server."""
    one = guarded(proxy.url, commands=5, connections=5)
    proxy.black_hole = True
    waiting = [asyncio.create_task(one.call("PING")) for _ in range(5)]
    await asyncio.sleep(0)
    async with LoopTime() as waited:
        assert [await reason_of(one.call("PING")) for _ in range(100)] == ["busy"] * 100
    assert waited.seconds < 0.1
    assert one.failures == []
    assert [await reason_of(task) for task in waiting] == ["timeout"] * 5
    proxy.black_hole = False
    proxy.cut()
    assert not one.guard.breaker.open


async def test_command_that_got_no_connection_counts_nothing(guarded: Make, proxy: Proxy) -> None:
    """Only failures of commands that reached the server count."""
    one = guarded(proxy.url, connections=1)
    proxy.black_hole = True
    reasons = await asyncio.gather(*(reason_of(one.call("PING")) for _ in range(10)))
    # One that gets its turn as its deadline expires fails with "timeout", too.
    assert "busy" in reasons
    assert reasons.count("busy") + len(one.failures) == 10
    assert one.guard.breaker._failures == 1


async def test_no_command_gets_the_reply_of_another(guarded: Make, redis_server: RedisServer) -> None:
    """After hundreds of cancellations at random times, each command gets its own value, and no connection is lost."""
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
    assert one.limiter.under_way == 0
    assert len(one.client.connection_pool._in_use_connections) == 0
    assert len(one.client.connection_pool._available_connections) <= 3


async def test_no_command_gets_a_late_reply(guarded: Make, proxy: Proxy) -> None:
    """The connection of a command that timed out is closed."""
    one = guarded(proxy.url, connections=1, command_seconds=0.05)
    assert await one.guard.attempt(lambda: one.client.echo("first"), seconds=2) == b"first"
    proxy.latency = 0.04
    assert await reason_of(one.guard.attempt(lambda: one.client.echo("late"))) == "timeout"
    assert await one.guard.attempt(lambda: one.client.echo("next"), seconds=2) == b"next"


async def test_cancelled_command_counts_nothing(guarded: Make, proxy: Proxy) -> None:
    """A caller that disconnects says nothing of Redis."""
    one = guarded(proxy.url)
    proxy.black_hole = True
    for _ in range(5):
        task = asyncio.create_task(one.call("PING"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert one.failures == []


async def test_loop_that_is_blocked_repeatedly_counts_nothing(guarded: Make, redis_server: RedisServer) -> None:
    """Replies then seem late that were not, even after the deadline was extended."""
    one = guarded(redis_server.url, command_seconds=0.03)
    await one.guard.attempt(one.client.ping, seconds=1)
    for _ in range(3):
        task = asyncio.create_task(one.guard.attempt(lambda: one.client.blpop(["nothing"], timeout=0)))
        while not task.done():
            await asyncio.sleep(0.002)
            time.sleep(0.1)  # noqa: ASYNC251  blocking the loop is what is tested
        assert await reason_of(task) == "timeout"
    assert one.failures == []


async def test_missing_reply_after_a_blocked_loop_counts(guarded: Make, redis_server: RedisServer) -> None:
    """Otherwise a program that blocks its loop now and then would never notice an outage."""
    one = guarded(redis_server.url, command_seconds=0.2)
    await one.guard.attempt(one.client.ping, seconds=1)
    for _ in range(3):  # in one of them the machine may stall a second time
        task = asyncio.create_task(one.guard.attempt(lambda: one.client.blpop(["nothing"], timeout=0)))
        await asyncio.sleep(0.01)
        time.sleep(0.5)  # noqa: ASYNC251  blocking the loop is what is tested
        assert await reason_of(task) == "timeout"
    assert "timeout" in one.failures


async def test_reply_that_arrived_while_the_loop_was_blocked_is_used(guarded: Make, redis_server: RedisServer) -> None:
    """The deadline expires in the turn in which the reply is read; the reply counts."""
    one = guarded(redis_server.url, command_seconds=0.4)
    await one.guard.attempt(one.client.ping, seconds=10)
    for stall in (0.5, 0.7):
        task = asyncio.create_task(one.call("ECHO", "it came in time"))
        for _ in range(10):  # until it is sent
            await asyncio.sleep(0)
        time.sleep(stall)  # noqa: ASYNC251  blocking the loop is what is tested
        assert await task == b"it came in time"
    assert one.failures == []
    assert not one.guard.reply_may_be_lost


@pytest.mark.parametrize("waits", [False, True])
async def test_exhausted_pool_of_a_user_counts_nothing(
    guarded: Make, redis_server: RedisServer, *, waits: bool
) -> None:
    """It may raise at once or after a wait of its own."""
    options: dict[str, Any] = {"port": redis_server.port, "max_connections": 1}
    pool: Any = BlockingConnectionPool(timeout=0.01, **options) if waits else ConnectionPool(**options)
    one = guarded(Redis(connection_pool=pool), command_seconds=1.0)
    connection = await pool.get_connection()
    for _ in range(3):
        assert await reason_of(one.guard.run(one.client.ping)) == "busy"
    assert not one.guard.breaker.open
    await pool.release(connection)
    await pool.aclose()


class Unspeakable(Exception):
    """An exception of user code whose text cannot be had."""

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
        (exceptions.ConnectionError("Connection closed by server."), "reset"),
        (exceptions.ConnectionError("The connection was lost in the handshake."), "reset"),
        (AttributeError("'NoneType' object has no attribute '_add_writer'"), "reset"),
        (AttributeError("'NoneType' object has no attribute 'of the program'"), "client"),
        (RuntimeError(5), "client"),
        (exceptions.ConnectionError("max number of clients reached"), "connection"),
        (RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"), "reset"),
        (RuntimeError("Event loop is closed"), "client"),
        (KeyError("expired credentials"), "client"),
        (Unspeakable(), "client"),
        (ConnectionRefusedError(), "refused"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect failed ('::1', 1), [Errno 111] Connect"),
            "refused",
        ),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 113] Connect"), "connection"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "dns"),
        (OSError(errno.EMFILE, "Too many open files"), "nofile"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "reset"),
        (BrokenPipeError(), "reset"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "connection"),
        (ssl.SSLError("wrong version number"), "connection"),
        (TimeoutError(), "timeout"),
        (exceptions.InvalidResponse(), "error"),
    ],
)
async def test_every_failure_has_a_reason(guarded: Make, error: Exception, expected: str) -> None:
    """No exception escapes as itself: requests go on without Redis."""

    async def fail() -> None:
        raise error

    assert classify(error) == expected
    assert await reason_of(guarded("redis://127.0.0.1:1").guard.run(fail)) == expected
