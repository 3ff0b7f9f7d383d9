"""A broker that closes leaves nothing open, whatever cancels the task that leaves it."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

import anyio
import pytest
import redis.asyncio as redis

from tests.asgi_client import Source, is_open
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker, TokenUnavailable
from tokenmw.providers import StaticToken
from tokenmw.runtime.runtime import Runtime
from tokenmw.sessions.sync import SessionSync

PATIENT = Limits(command_seconds=2.0)


async def busy(broker: TokenBroker) -> tuple[Runtime, SessionSync]:
    """Give a broker a touch to send when it closes; it has three connections to Redis."""
    await broker.session_id("k")
    runtime, session = broker._runtime, broker._data.sessions.get(b"k")
    assert runtime is not None
    assert runtime.redis is not None
    await asyncio.gather(*(runtime.redis.run("read", [b"{k}"] * 4, ()) for _ in range(2)))
    assert runtime.session_sync is not None
    assert session is not None
    runtime.session_sync.queue(b"k", session)
    assert 3 == connections(runtime)
    return runtime, runtime.session_sync


def connections(runtime: Runtime) -> int:
    """Return the number of open connections to Redis."""
    assert runtime.redis is not None
    client = runtime.redis._client
    assert isinstance(client, redis.Redis)
    pool: Any = client.connection_pool
    return sum(one.is_connected for one in [*pool._available_connections, *pool._in_use_connections])


async def leave_and_be_cancelled(broker: TokenBroker) -> None:
    """Leave, and be cancelled while the touch is being sent."""
    leaving = asyncio.ensure_future(broker.__aexit__())
    for _ in range(10):
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_cancel_scope_does_not_prevent_closing(redis_server: RedisServer) -> None:
    """It cancels each await of the leaving task, but the touch is sent, and nothing is left open."""
    broker = TokenBroker({}, redis=redis_server.url, limits=PATIENT)
    await broker.__aenter__()
    runtime, touches = await busy(broker)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await broker.__aexit__()
    assert 0 == connections(runtime)
    assert 0 == touches.touches


async def test_a_cancel_scope_around_opening_leaves_nothing_open() -> None:
    """A task that is cancelled while it enters never leaves; the connection that is being made is closed."""
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = TokenBroker({}, redis=f"redis://127.0.0.1:{silent.getsockname()[1]}/0", limits=PATIENT)
        async with anyio.create_task_group() as group:
            group.start_soon(broker.__aenter__)
            for _ in range(10):
                await asyncio.sleep(0)
            assert is_open(broker)
            group.cancel_scope.cancel()
        assert not is_open(broker)
        assert before == asyncio.all_tasks()


async def test_a_task_cancelled_while_closing_ends_and_closing_continues(private_redis: RedisServer) -> None:
    """A second cancellation ends the leaving task, and the broker closes without it."""
    before, source = asyncio.all_tasks(), Source()
    source.gate.clear()
    broker = TokenBroker({"a": StaticToken(source)}, redis=private_redis.url, limits=Limits(command_seconds=0.4))
    await broker.__aenter__()
    runtime, _ = await busy(broker)
    waiting = asyncio.ensure_future(broker.token("a"))
    private_redis.freeze()
    await leave_and_be_cancelled(broker)
    with pytest.raises(TokenUnavailable, match="the broker was closed"):
        await asyncio.wait_for(waiting, 10)
    if remaining := asyncio.all_tasks() - before:
        await asyncio.wait(remaining)
    assert 0 == connections(runtime)


def test_a_loop_that_stops_during_closing(private_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """The touch is lost, but nothing stays open, asyncio logs no error, and the broker works in the next loop."""
    broker = TokenBroker({}, redis=private_redis.url, limits=PATIENT)

    async def stop_early() -> Runtime:
        await broker.__aenter__()
        runtime, _ = await busy(broker)
        private_redis.freeze()
        await leave_and_be_cancelled(broker)
        return runtime

    async def use() -> str:
        async with broker:
            await broker.session_id("k")
            return broker.status().shared

    runtime = asyncio.run(stop_early())
    assert 0 == connections(runtime)
    gc.collect()
    private_redis.thaw()
    assert "up" == asyncio.run(use())
    assert [] == [record.getMessage() for record in caplog.records if record.name == "asyncio"]
