"""A guarded connection to a real server, and the scripts without one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.proxies import Proxy
from tests.redis.guarded import Guarded
from tests.redis.scripted import Scripts
from tests.servers import RedisServer
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.observe.events import Observers
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.client import close_client
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from tokenmw.observe.events import Event

    Connect = Callable[..., RedisConnection]

OLD = "old-secret-0123456789"
NEW = "new-secret-0123456789"


@pytest.fixture
def scripts(redis_server: RedisServer) -> Iterator[Scripts]:
    """The scripts on a server without keys."""
    with redis_server.connect() as connection:
        yield Scripts(connection)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisServer]:
    """A cluster of one node, which has all slots."""
    with RedisServer("--cluster-enabled", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield server


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncGenerator[Proxy]:
    """A line to the server that a test can spoil."""
    async with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def names() -> KeyNames:
    """Keyed names."""
    return KeyNames("test", name_key=OLD)


@pytest.fixture
def seals() -> Sealer:
    """One secret's seals."""
    return Sealer([OLD])


@pytest.fixture
def events() -> list[Event]:
    """What the connections have told their observers."""
    return []


@pytest.fixture
def log_clock() -> ManualClock:
    """The clock of the log; the server has its own."""
    return ManualClock()


@pytest.fixture
async def connect(names: KeyNames, events: list[Event], log_clock: ManualClock) -> AsyncGenerator[Connect]:
    """Make connections, which are closed after the test."""
    made: list[RedisConnection] = []

    def make(given: Any, **limits: Any) -> RedisConnection:
        log = ThrottledLog(log_clock)
        connection = RedisConnection(
            given,
            names=names,
            limits=Limits(**limits),
            clock=SYSTEM_CLOCK,
            log=log,
            observers=Observers([events.append], log=log),
        )
        made.append(connection)
        return connection

    yield make
    for connection in made:
        await connection.close()


@pytest.fixture
async def guarded() -> AsyncGenerator[Callable[..., Guarded]]:
    """Make guards, whose clients are closed after the test."""
    made: list[Guarded] = []

    def make(url: str, **limits: Any) -> Guarded:
        made.append(Guarded(url, **limits))
        return made[-1]

    yield make
    for one in made:
        await close_client(one.client)
