"""A server that is back is used at once, whatever was left half-done while it was away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis.asyncio

from tests.proxies import Proxy
from tests.redis.waiting import fails, get, until
from tokenmw.limits import Limits
from tokenmw.redis.client import close_client, drop_dials, open_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]


async def test_no_command_is_given_a_connection_that_was_dialled_while_the_server_was_away(
    connect: Connect, proxy: Proxy
) -> None:
    """Its packets are lost, so it hangs on for as long as connecting may take."""
    connection = connect(proxy.url, command_seconds=0.3, connect_seconds=60.0)
    proxy.black_hole = True
    for _ in range(3):
        assert "timeout" == await fails(connection)
    assert ["down", "timeout"] == [connection.state, connection.error]
    client: Any = connection._client
    pool = client.connection_pool
    available: list[Any] = pool._available_connections
    (hanging,) = available
    assert hanging.dialling_before(float("inf"))
    proxy.black_hole = False
    available.append(pool.make_connection())  # the prober takes the last one
    await until(lambda: connection.state == "up", within=20)
    assert not hanging.dialling_before(float("inf"))
    # Each of them needs a connection of its own.
    assert [None] * 10 == await asyncio.gather(*(get(connection) for _ in range(10)))
    assert ["up", ""] == [connection.state, connection.error]


async def test_what_is_dialled_since_goes_on(proxy: Proxy) -> None:
    """A slow handshake is no reason to begin it anew; and a client of the user's is not touched."""
    proxy.connect_delay = 0.2
    ours, _ = open_client(proxy.url, limits=Limits())
    async with redis.asyncio.Redis(port=proxy.port) as users:
        before = asyncio.get_running_loop().time()
        waiting = [asyncio.ensure_future(client.ping()) for client in (ours, users)]
        await until(lambda: proxy.accepted == 2, within=20)
        await drop_dials(ours, before=before)
        await drop_dials(users, before=float("inf"))
        assert [True, True] == await asyncio.gather(*waiting)
    assert 2 == proxy.accepted
    await close_client(ours)
