"""Connections to a real server, and the scripts on it without the package's client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.proxies import Proxy
from tests.redis.glides import configuration
from tests.redis.guarded_client import GuardedClient
from tests.redis.scripted import Scripts
from tests.servers import RedisServer
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.client import close_client
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.keys import KeyNames
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from tokenmw.observe.events import Event

    Connect = Callable[..., RedisConnection]

SECRET = "old-secret-0123456789"


@pytest.fixture
def scripts(redis_server: RedisServer) -> Iterator[Scripts]:
    """The scripts on a server without keys."""
    with redis_server.connect() as connection:
        yield Scripts(connection)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisServer]:
    """A cluster of one node that has all slots."""
    with RedisServer("--cluster-enabled", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield server


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncGenerator[Proxy]:
    """A proxy in front of the server, which a test can make slow or cut off."""
    async with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture(params=["redis-py", pytest.param("glide", marks=pytest.mark.sdk)])
def given(request: pytest.FixtureRequest, redis_server: RedisServer) -> Any:
    """What a program passes as `redis=`: a URL, or the configuration of a client of valkey-glide."""
    return redis_server.url if request.param == "redis-py" else configuration(redis_server.port)


@pytest.fixture
def names() -> KeyNames:
    """Names under a secret."""
    return KeyNames("test", name_key=SECRET)


@pytest.fixture
def events() -> list[Event]:
    """The events of all connections of a test."""
    return []


@pytest.fixture
def log_clock() -> ManualClock:
    """The clock of the log; connections use the system's."""
    return ManualClock()


@pytest.fixture
async def connect(names: KeyNames, events: list[Event], log_clock: ManualClock) -> AsyncGenerator[Connect]:
    """Make connections that are closed after the test."""
    made: list[RedisConnection] = []

    def make(given: Any, *, on_recovered: Callable[[], None] = lambda: None, **limits: Any) -> RedisConnection:
        log = ThrottledLog(log_clock)
        connection = RedisConnection(
            given,
            names=names,
            limits=Limits(**limits),
            clock=SYSTEM_CLOCK,
            log=log,
            observe=events.append,
            on_recovered=on_recovered,
        )
        made.append(connection)
        return connection

    yield make
    for connection in made:
        await connection.close()


@pytest.fixture
async def guarded() -> AsyncGenerator[Callable[..., GuardedClient]]:
    """Make guarded clients that are closed after the test."""
    made: list[GuardedClient] = []

    def make(given: Any, **options: Any) -> GuardedClient:
        made.append(GuardedClient(given, **options))
        return made[-1]

    yield make
    for one in made:
        await one.guard.close()
        await close_client(one.client)
