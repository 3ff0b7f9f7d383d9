"""A server that has recovered is used at once, whatever connection attempts were begun during the outage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis.asyncio

from tests.proxies import Proxy
from tests.redis.waiting import fails, get, until
from tokenmw.limits import Limits
from tokenmw.redis.client import abort_connecting, close_client, open_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]


async def test_no_command_gets_a_connection_attempt_of_the_outage(connect: Connect, proxy: Proxy) -> None:
    """Its packets are lost, so it hangs for as long as connecting may take."""
    connection = connect(proxy.url, command_seconds=0.3, connect_seconds=60.0)
    proxy.black_hole = True
    for _ in range(3):
        assert "timeout" == await fails(connection)
    assert ["down", "timeout"] == [connection.state, connection.error]
    client: Any = connection._client
    pool = client.connection_pool
    available: list[Any] = pool._available_connections
    (hanging,) = available
    assert hanging.connecting_since_before(float("inf"))
    proxy.black_hole = False
    available.append(pool.make_connection())  # the probe takes the last one
    await until(lambda: connection.state == "up", within=20)
    assert not hanging.connecting_since_before(float("inf"))
    # Each of them needs a connection of its own.
    assert [None] * 10 == await asyncio.gather(*(get(connection) for _ in range(10)))
    assert ["up", ""] == [connection.state, connection.error]


async def test_later_connection_attempts_continue(proxy: Proxy) -> None:
    """A slow handshake is not interrupted, and a client of the user is not touched."""
    proxy.connect_delay = 0.2
    ours: Any = open_client(proxy.url, limits=Limits())[0]
    async with redis.asyncio.Redis(port=proxy.port) as users:
        before = asyncio.get_running_loop().time()
        waiting = [asyncio.ensure_future(client.ping()) for client in (ours, users)]
        await until(lambda: proxy.accepted == 2, within=20)
        await abort_connecting(ours, before=before)
        await abort_connecting(users, before=float("inf"))
        assert [True, True] == await asyncio.gather(*waiting)
    assert 2 == proxy.accepted
    await close_client(ours)
