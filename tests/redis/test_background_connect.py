"""A connection is made in a background task, and no command uses it before it is made."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.looptime import LoopTime
from tokenmw.redis.background_connect import BACKGROUND_CONNECTIONS

if TYPE_CHECKING:
    from tests.proxies import Proxy
    from tests.servers import RedisServer


def connection_to(port: int, *, connect_seconds: float = 3.0) -> Any:
    """Return a connection that is not connected yet."""
    connection_class: Any = BACKGROUND_CONNECTIONS[Connection]
    return connection_class(host="127.0.0.1", port=port, socket_connect_timeout=connect_seconds, socket_timeout=30.0)


async def test_no_command_is_sent_during_a_handshake(proxy: Proxy) -> None:
    """A second command waits for the handshake that the first one began, or it would read its replies."""
    proxy.connect_delay = 0.2
    connection = connection_to(proxy.port)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.send_command("ECHO", "first")
    assert not connection.is_connected
    await connection.send_command("ECHO", "second")
    assert await connection.read_response() == b"second"
    assert proxy.accepted == 1
    await connection.abort()


async def test_handshake_has_one_bound(proxy: Proxy) -> None:
    """The whole handshake takes `connect_seconds` at most, however many steps it has."""
    proxy.black_hole = True
    connection = connection_to(proxy.port, connect_seconds=0.1)
    began = time.monotonic()
    async with LoopTime() as waited:
        with pytest.raises(RedisTimeoutError):
            await connection.connect()
    assert 0.05 < time.monotonic() - began
    assert waited.seconds < 0.5
    assert not connection.is_connected
    await connection.abort()


async def test_failed_connection_attempt_is_repeated(proxy: Proxy) -> None:
    """The next command connects again, and does not get the error of the attempt before."""
    await proxy.refuse()
    connection = connection_to(proxy.port)
    with pytest.raises(RedisConnectionError):
        await connection.connect()
    await proxy.listen()
    await connection.connect()
    assert connection.is_connected
    await connection.abort()


async def test_abort_raises_in_waiters_and_does_not_cancel_them(proxy: Proxy) -> None:
    """A CancelledError would look as if the waiter's own task had been cancelled."""
    proxy.black_hole = True
    connection = connection_to(proxy.port)
    waiter = asyncio.create_task(connection.connect())
    await asyncio.sleep(0.02)
    await connection.abort()
    with pytest.raises(RedisConnectionError, match="closed"):
        await waiter
    assert not waiter.cancelled()


async def test_abort_right_after_the_start_leaves_no_task(redis_server: RedisServer) -> None:
    """A connection can be aborted before its task has taken the first step."""
    connection = connection_to(redis_server.port)
    waiter = asyncio.create_task(connection.connect())
    while connection._connecting.task is None:  # noqa: ASYNC110  one turn of the loop is what this is about
        await asyncio.sleep(0)
    await connection.abort()
    with pytest.raises(RedisConnectionError):
        await waiter


async def test_abort_does_not_wait_until_data_is_sent(proxy: Proxy) -> None:
    """A server that reads no more would otherwise keep the socket open for ever."""
    connection = connection_to(proxy.port)
    await connection.connect()
    transport = connection._writer.transport
    proxy.latency = 30.0
    transport.write(bytes(20_000_000))
    assert transport.get_write_buffer_size() > 0
    await connection.abort()
    await asyncio.sleep(0)
    assert transport.get_extra_info("socket").fileno() == -1
