"""`RedisStore` passes the suite of connection stores with valkey-glide, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.redis.glides import configuration, glide
from tests.servers import RedisServer
from tokenmw.connections import ConnectionKey, RedisStore, StoreUnavailable
from tokenmw.testing.connection_store_suite import ConnectionStoreSuite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.sdk
KEY = ConnectionKey("app", "user", "d" * 32)


def open_store(port: int) -> RedisStore:
    """Make a store."""
    return RedisStore(configuration(port))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server that persists. Skips without valkey-glide, also what only starts other processes."""
    glide()
    with RedisServer("--appendonly", "yes") as server:
        yield server


class TestGlide(ConnectionStoreSuite):
    """A client of valkey-glide."""

    @pytest.fixture
    def make_store(self, server: RedisServer) -> Callable[[], RedisStore]:
        """Return a function that makes a store."""
        return lambda: open_store(server.port)

    @pytest.fixture
    def process_store(self, server: RedisServer) -> Any:
        """Return what makes a store in another process."""
        return open_store, (server.port,)


async def test_a_server_that_hangs_or_is_killed_is_used_again(private_redis: RedisServer) -> None:
    """A call that times out closes its connection, and the next one makes another."""
    store = RedisStore(configuration(private_redis.port), seconds=0.5)
    assert await store.save(KEY, b"value", expected=0)
    for stop, go_on in ((private_redis.freeze, private_redis.thaw), (private_redis.kill, private_redis.restart)):
        stop()
        with pytest.raises(StoreUnavailable):
            await store.load(KEY)
        await asyncio.to_thread(go_on)
        await store.load(KEY)
    await store.aclose()
