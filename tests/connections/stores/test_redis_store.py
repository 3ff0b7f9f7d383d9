"""`RedisStore` passes the suite of connection stores, on each server that is here, and says what makes one unsafe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis

from tests.servers import RedisServer, require_server, wheel_server
from tokenmw import ConfigurationError
from tokenmw.connections import ConnectionKey, RedisStore, StoreUnavailable
from tokenmw.testing.connection_store_suite import ConnectionStoreSuite

KEY = ConnectionKey("app", "user", "d" * 32)
SERVERS = {str(path): path for path in (require_server(), wheel_server()) if path is not None}


def open_store(url: str) -> RedisStore:
    """Make a store."""
    return RedisStore(url)


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that persists."""
    with RedisServer("--appendonly", "yes", executable=SERVERS[request.param]) as server:
        yield server


class TestRedis(ConnectionStoreSuite):
    """Redis and Valkey."""

    @pytest.fixture
    def make_store(self, server: RedisServer) -> Callable[[], RedisStore]:
        """Return a function that makes a store."""
        return lambda: open_store(server.url)

    @pytest.fixture
    def process_store(self, server: RedisServer) -> Any:
        """Return what makes a store in another process."""
        return open_store, (server.url,)


async def texts(url: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is logged when a store is used twice."""
    caplog.set_level(logging.WARNING, "tokenmw")
    store = RedisStore(url)
    await store.load(KEY)
    await store.load(KEY)
    await store.aclose()
    return [record.getMessage() for record in caplog.records]


async def test_a_server_that_persists_is_not_logged(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """With appendonly and noeviction, nothing is logged."""
    assert await texts(server.url, caplog) == []


async def test_a_server_that_forgets_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Without appendonly, and with a policy that evicts any key, one line each says what to set."""
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server:
        first, second = await texts(server.url, caplog)
    assert "the server loses its data when it restarts" in first
    assert first.endswith("Set appendonly yes.")
    assert second.endswith("Set maxmemory-policy noeviction.")


async def test_a_server_of_which_nothing_is_known_is_logged(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the user may not run INFO, the store works, and one line says that nothing is known."""
    private_redis.command("ACL", "SETUSER", "limited", "on", ">a", "~tokenmw:*", "+@all", "-info")
    (text,) = await texts(private_redis.url.replace("redis://", "redis://limited:a@"), caplog)
    assert "this user may not run INFO" in text


async def test_rows_outlive_a_killed_server(tmp_path: Path) -> None:
    """With appendonly, what was stored is there after the server was killed and started again."""
    with RedisServer("--appendonly", "yes") as server:
        store = RedisStore(server.url)
        assert await store.save(KEY, b"value", expected=0)
        server.restart()
        found = await store.load(KEY)
        await store.aclose()
    assert found is not None
    assert (1, b"value") == (found.version, found.value)


async def test_an_unavailable_server_raises(private_redis: RedisServer) -> None:
    """Refused, frozen, full and read-only: `StoreUnavailable` names reason and address, within the time limit."""
    store = RedisStore(private_redis.url, seconds=0.5)
    assert await store.save(KEY, b"1", expected=0)
    private_redis.freeze()
    with pytest.raises(StoreUnavailable, match=r"timeout, 127\.0\.0\.1"):
        await store.save(KEY, b"2", expected=1)
    private_redis.thaw()
    private_redis.command("CONFIG", "SET", "maxmemory", "1")
    found = await store.load(KEY)
    assert found is not None
    with pytest.raises(StoreUnavailable, match="full"):
        await store.save(KEY, b"3", expected=found.version)
    private_redis.command("CONFIG", "SET", "maxmemory", "0")
    private_redis.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.save(KEY, b"3", expected=found.version)
    private_redis.kill()
    with pytest.raises(StoreUnavailable, match="refused") as raised:
        await store.load(KEY)
    assert (None, None) == (raised.value.__cause__, raised.value.__context__)
    await store.aclose()


async def test_a_refused_password_is_not_in_the_text() -> None:
    """A wrong password raises with the reason, and without the password."""
    with RedisServer("--requirepass", "sesame") as server:
        store = RedisStore(server.url.replace("sesame", "a-password"))
        with pytest.raises(StoreUnavailable, match="auth") as raised:
            await store.load(KEY)
        await store.aclose()
    assert "a-password" not in str(raised.value)


async def test_a_write_waits_for_replicas(private_redis: RedisServer) -> None:
    """With `replicas=1`, a write that no replica confirms raises; it is stored nevertheless."""
    store = RedisStore(private_redis.url, seconds=0.5, replicas=1)
    with pytest.raises(StoreUnavailable, match="replicas"):
        await store.save(KEY, b"1", expected=0)
    assert (await store.load(KEY)) is not None
    with RedisServer("--replicaof", "127.0.0.1", str(private_redis.port)) as replica:
        for _ in range(100):
            if b"master_link_status:up" in replica.command("INFO", "replication"):
                break
            await asyncio.sleep(0.1)
        patient = RedisStore(private_redis.url, replicas=1)
        assert await patient.save(KEY, b"2", expected=1)
        await patient.aclose()
    await store.aclose()


async def test_a_client_of_the_program_is_not_closed(redis_server: RedisServer) -> None:
    """The client is used, and still works after `aclose`."""
    client = redis.Redis.from_url(redis_server.url)
    store = RedisStore(client, namespace="mine")
    assert await store.save(KEY, b"1", expected=0)
    await store.aclose()
    assert 1 == await client.exists("mine:v1:{connections}:" + KEY.digest)
    await client.aclose()


def test_what_cannot_work_is_refused() -> None:
    """Replicas of a cluster, and numbers that are none, raise `ConfigurationError`."""
    with pytest.raises(ConfigurationError, match="not a cluster"):
        RedisStore("redis+cluster://127.0.0.1", replicas=1)
    with pytest.raises(ConfigurationError, match="replicas"):
        RedisStore("redis://127.0.0.1", replicas=-1)
    with pytest.raises(ConfigurationError, match="seconds"):
        RedisStore("redis://127.0.0.1", seconds=0)


def test_no_text_shows_the_password() -> None:
    """Neither `repr` nor an attribute shows the URL's password."""
    store = RedisStore("redis://:a-password@127.0.0.1/0")
    assert "a-password" not in repr(
        (store, store._rows, *(getattr(store._rows, name) for name in store._rows.__slots__))
    )
