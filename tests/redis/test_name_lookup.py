"""A host name of Redis that does not resolve delays nothing else, and is reported as what it is."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.looptime import LoopTime
from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import fails, get, until
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.redis.name_lookup import NameLookups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]

NAME = "redis.example"
_getaddrinfo = socket.getaddrinfo


class Resolver:
    """Replaces the system's lookups of `redis.example`, and of other names below `example`.

    Attributes:
        answers: Is set while lookups are answered; the threads wait until then.
        results: The addresses of the name, or an error.
        asked: The names that were looked up, in order.
    """

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.results: list[str] | OSError = ["127.0.0.1"]
        self.asked: list[str] = []

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if not str(host).endswith("example"):
            return _getaddrinfo(host, port, *args, **options)
        self.asked.append(host)
        self.answers.wait()
        if isinstance(self.results, OSError):
            raise self.results
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in self.results]


class _OddError(OSError):
    def __init__(self, first: str, second: int, *, three: int) -> None:
        super().__init__(first, second, three)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """The system's resolver, which does not answer at first."""
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answers.set()


@pytest.mark.parametrize("scheme", ["redis", "rediss", pytest.param("redis+cluster", marks=needs_cluster_urls)])
async def test_lookup_that_hangs_leaves_the_default_executor_alone(
    connect: Connect, resolver: Resolver, scheme: str
) -> None:
    """It filled the executor: 1 744 of 6 004 requests failed, and the log blamed the token endpoint."""
    connection = connect(f"{scheme}://{NAME}:6379", connect_seconds=0.5)
    await asyncio.gather(*(fails(connection) for _ in range(64)))
    await asyncio.sleep(1.0)  # some probes
    async with asyncio.timeout(2), LoopTime() as waited:
        assert await asyncio.to_thread(lambda: "ran") == "ran"
    assert waited.seconds < 0.5
    assert len(resolver.asked) == 1


async def test_all_of_a_broker_has_one_lookup(resolver: Resolver) -> None:
    """Commands, probes and the connection of the hints share it; requests go on."""
    limits = Limits(connect_seconds=0.5)
    async with TokenBroker({}, redis=f"redis://{NAME}", secret_key="a-secret-of-some-length", limits=limits) as broker:
        assert broker.status().shared_error == "dns"
        await asyncio.gather(*(broker.session_id(f"k{number}") for number in range(64)))
        await asyncio.sleep(1.0)
        async with asyncio.timeout(2):
            assert await asyncio.to_thread(lambda: "ran") == "ran"
    assert len(resolver.asked) == 1


async def test_lookup_that_hangs_is_reported_as_such(
    connect: Connect, resolver: Resolver, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The fix is not that of a slow server. Once the name resolves, Redis is used."""
    connection = connect(f"redis://{NAME}:{redis_server.port}", connect_seconds=0.5)
    assert not await connection.open()
    assert (connection.state, connection.error) == ("down", "dns")
    address = f"{NAME}:{redis_server.port}"
    fix = "its host name does not resolve: check the name, and this machine's name servers"
    assert caplog.messages == [f"tokenmw: Redis unavailable (dns, {address}): {fix}; serving from local caches"]
    resolver.answers.set()
    await until(lambda: connection.state == "up", within=20)
    assert await get(connection) is None


async def test_each_address_is_tried(connect: Connect, resolver: Resolver, redis_server: RedisServer) -> None:
    """A name may have an address for IPv6 on which the server does not listen."""
    resolver.answers.set()
    resolver.results = ["127.0.0.2", "127.0.0.1"]
    connection = connect(f"redis://{NAME}:{redis_server.port}", command_seconds=2.0)
    assert await connection.open()
    resolver.results = ["127.0.0.2", "127.0.0.3"]
    other = connect(f"redis://{NAME}:{redis_server.port}", command_seconds=2.0)
    assert not await other.open()
    assert other.error == "refused"


async def test_name_without_an_address_is_reported_as_such(connect: Connect, resolver: Resolver) -> None:
    """Each waiter gets an error of its own."""
    resolver.answers.set()
    resolver.results = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    connection = connect(f"redis://{NAME}")
    assert {await fails(connection) for _ in range(3)} == {"dns"}
    lookups = NameLookups()
    errors = await asyncio.gather(*(lookups.addresses(NAME, seconds=5.0) for _ in range(3)), return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    assert {type(error) for error in errors} == {socket.gaierror}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
async def test_address_needs_no_lookup(host: str) -> None:
    """So it needs no thread and no turn of the event loop."""
    with pytest.raises(StopIteration) as ended:
        NameLookups().addresses(host, seconds=None).send(None)
    assert ended.value.value == (host,)


async def test_label_that_is_too_long_does_not_resolve() -> None:
    """Python raises a UnicodeError for it."""
    with pytest.raises(socket.gaierror, match="not a host name"):
        await NameLookups().addresses("a" * 64 + ".example", seconds=10.0)


async def test_names_beyond_the_bound_wait_for_a_thread(resolver: Resolver) -> None:
    """The names of a large cluster do not take a thread each at the same time."""
    lookups = NameLookups()
    waiting = [asyncio.ensure_future(lookups.addresses(f"node-{n}.example", seconds=10.0)) for n in range(40)]
    await asyncio.sleep(0.1)
    assert len(resolver.asked) == 16
    with pytest.raises(socket.gaierror):
        await lookups.addresses("one-more.example", seconds=0.05)
    waiting[0].cancel()
    resolver.answers.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[1:] == [("127.0.0.1",)] * 39


@pytest.mark.parametrize("raised", [ValueError("embedded null character"), MemoryError(), _OddError("one", 2, three=3)])
async def test_a_lookup_that_raises_ends(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waiters get an OSError immediately, and the next lookup of the same name is a new one."""

    def getaddrinfo(*_args: Any, **_options: Any) -> Any:
        raise raised

    lookups = NameLookups()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with asyncio.timeout(2):
        with pytest.raises(OSError, match=r"lookup raised|one"):
            await lookups.addresses("localhost", seconds=10.0)
        monkeypatch.undo()
        assert await lookups.addresses("localhost", seconds=10.0)


async def test_an_answer_without_addresses_is_an_error(connect: Connect, resolver: Resolver) -> None:
    """No connection is taken for open that has no address."""
    resolver.answers.set()
    resolver.results = []
    assert "dns" == await fails(connect(f"redis://{NAME}"))
