"""Names that do not resolve delay only themselves."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import ROOT
from tests.providers.network.servers import GRANT, answers, listening
from tokenmw import TokenBroker
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import ClientCredentials
from tokenmw.providers.network import resolver as module
from tokenmw.providers.network.resolver import MAX_THREADS, Resolver

if TYPE_CHECKING:
    from collections.abc import Iterator


class Names:
    """Name servers: names that begin with "dead" have none that answers, until `release`.

    Attributes:
        lookups: How often each name was looked up.
        dead: Whether names that begin with "flips" are dead, too.
    """

    def __init__(self) -> None:
        self.lookups: Counter[str] = Counter()
        self.dead = False
        self._released = threading.Event()

    def release(self) -> None:
        """Let all lookups of dead names end, with an error."""
        self._released.set()

    def hang(self) -> None:
        """Let later lookups of dead names hang again."""
        self._released = threading.Event()

    def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        """Stand in for `socket.getaddrinfo`."""
        name = host.decode() if isinstance(host, bytes) else host
        self.lookups[name] += 1
        if name.startswith("dead") or (self.dead and name.startswith("flips")):
            self._released.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if name.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port or 0))] * 2


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """The name servers of this test. A lookup counts as slow after 50 ms."""
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    monkeypatch.setattr(module, "_SLOW", 0.05)
    yield made
    made.release()
    while any(thread.name == "tokenmw name lookup" for thread in threading.enumerate()):
        time.sleep(0.001)


def lookup_threads() -> int:
    """Return the number of threads that look names up."""
    return sum(thread.name == "tokenmw name lookup" for thread in threading.enumerate())


async def slow(names: Names, lookups: int) -> None:
    """Wait until so many lookups are running, and each has been slow. A busy machine starts threads late."""
    async with asyncio.timeout(20):
        while names.lookups.total() < lookups:  # noqa: ASYNC110  threads count them
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


async def settled(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_addresses_are_returned_once_each(names: Names) -> None:
    """A name's addresses have no duplicates; errors are `OSError`."""
    resolver = Resolver()
    assert ("127.0.0.1",) == await resolver.resolve("honest.example")
    with pytest.raises(socket.gaierror):
        await resolver.resolve("none.example")


@pytest.mark.parametrize("host", ["a..example", "x" * 64 + ".example", "\udc80"])
async def test_impossible_names_are_errors_of_the_system(host: str) -> None:
    """What Python cannot encode as a name does not exist."""
    with pytest.raises(OSError, match="not a host name"):
        await Resolver().resolve(host)


class Odd(OSError):
    """An error whose constructor takes other arguments than `OSError` has kept."""

    def __init__(self, *, host: str) -> None:
        super().__init__(f"no {host}", 1, 2, 3)


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("embedded null character"),
        RuntimeError("sockets are blocked in tests"),
        MemoryError(),
        OverflowError("too long"),
        Odd(host="x"),
        OSError(),
        SystemExit(1),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_exception_of_a_lookup_is_its_failure(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    """All that wait get an error of the system, and the thread is free for the next name: none waits for ever."""

    def fail(*_: Any, **__: Any) -> list[Any]:
        raise raised

    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with asyncio.timeout(5):
        for number in range(MAX_THREADS + 1):
            waiting = (resolver.resolve(f"h{number}.example") for _ in range(2))
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            assert [True, True] == [isinstance(error, OSError) for error in errors]
            assert not any(
                str(raised) in str(error) for error in errors if str(raised) and not isinstance(raised, OSError)
            )
    monkeypatch.undo()
    assert "127.0.0.1" in await resolver.resolve("localhost")


async def test_a_lookup_without_a_result_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list of addresses is no address."""

    def nothing(*_: Any, **__: Any) -> list[Any]:
        return []

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    with pytest.raises(socket.gaierror):
        await Resolver().resolve("h.example")


async def test_one_lookup_for_all_that_ask(names: Names) -> None:
    """A name has one lookup at a time; each caller gets an error of its own."""
    resolver = Resolver()
    results = await asyncio.gather(*(resolver.resolve("honest.example") for _ in range(50)))
    assert {("127.0.0.1",)} == set(results)
    errors = await asyncio.gather(*(resolver.resolve("none.example") for _ in range(3)), return_exceptions=True)
    assert 3 == len({id(error) for error in errors})
    assert {"honest.example": 1, "none.example": 1} == names.lookups


@pytest.mark.parametrize("dead", [6, 40])
async def test_honest_tenant_gets_its_token_beside_dead_names(names: Names, dead: int) -> None:
    """Tenants whose names do not resolve do not fill what an honest tenant needs, and close does not wait for them."""

    def tenant(host: str) -> ClientCredentials:
        url = f"http://{host}:{port}/"
        return ClientCredentials(token_url=url, client_id=host, client_secret="s", allow_http=True)

    async with listening(answers(GRANT)) as port, TokenBroker({}, limits=Limits(fetch_seconds=3.0)) as broker:
        tasks = [asyncio.create_task(broker.token(tenant(f"dead{number}.example"))) for number in range(dead)]
        await asyncio.sleep(0.02)
        token = await asyncio.wait_for(broker.token(tenant("honest.example")), 2)
        assert "t-1" == token.value
        (done, _) = await asyncio.wait(tasks)
        for task in done:
            with pytest.raises(TokenUnavailable):
                task.result()
        assert "(dns): the name lookup failed or took too long" in str(tasks[0].exception())


async def test_hosts_that_were_resolved_have_threads_of_their_own(names: Names) -> None:
    """However many new names hang, a host that was resolved before is resolved at once, and threads are bounded."""
    resolver = Resolver()
    await resolver.resolve("honest.example")
    tasks = [asyncio.create_task(resolver.resolve(f"dead{number}.example")) for number in range(300)]
    await asyncio.sleep(0.4)
    assert lookup_threads() <= MAX_THREADS
    assert ("127.0.0.1",) == await asyncio.wait_for(resolver.resolve("honest.example"), 1)
    await settled(tasks)


async def test_names_that_failed_are_confined(names: Names) -> None:
    """Names that were never resolved and took long have four threads, so that new names have all others."""
    resolver = Resolver()
    failing = [f"dead{number}.example" for number in range(12)]
    tasks = [asyncio.create_task(resolver.resolve(host)) for host in failing]
    await slow(names, 12)
    names.release()
    await asyncio.wait(tasks)
    for task in tasks:
        assert isinstance(task.exception(), socket.gaierror)
    names.hang()
    tasks = [asyncio.create_task(resolver.resolve(host)) for host in failing]
    await asyncio.sleep(0.15)
    assert 4 == lookup_threads()
    assert ("127.0.0.1",) == await asyncio.wait_for(resolver.resolve("new.example"), 1)
    await settled(tasks)


async def test_host_that_was_resolved_once_is_not_confined(names: Names) -> None:
    """After an outage of the name servers, hosts that had addresses before do not queue behind those that never had."""
    resolver = Resolver()
    await resolver.resolve("flips.example")
    names.dead = True
    for times in range(2):
        task = asyncio.create_task(resolver.resolve("flips.example"))
        await slow(names, 2 + times)
        names.release()
        with pytest.raises(socket.gaierror):
            await task
        names.hang()
    tasks = [asyncio.create_task(resolver.resolve(f"dead{number}.example")) for number in range(12)]
    await slow(names, 15)
    names.release()
    await asyncio.wait(tasks)
    for task in tasks:
        task.exception()
    names.hang()
    names.dead = False
    tasks = [asyncio.create_task(resolver.resolve(f"dead{number}.example")) for number in range(12)]
    await asyncio.sleep(0)
    assert ("127.0.0.1",) == await asyncio.wait_for(resolver.resolve("flips.example"), 1)
    await settled(tasks)


async def test_cancelled_callers_leave_nothing(names: Names) -> None:
    """A name whose callers have all been cancelled before its turn is never looked up."""
    resolver = Resolver()
    tasks = [asyncio.create_task(resolver.resolve(f"dead{number}.example")) for number in range(300)]
    await asyncio.sleep(0.02)
    await settled(tasks)
    looked_up = len(names.lookups)
    names.release()
    while lookup_threads():  # noqa: ASYNC110  threads set no event
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert looked_up == len(names.lookups) < MAX_THREADS
    assert {} == resolver._lookups
    assert {0} == set(resolver._threads.values())


async def test_threads_that_cannot_be_started(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread the lookup fails, and the next one is tried again."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Resolver()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="can't start new thread"):
            await resolver.resolve("honest.example")
    assert ("127.0.0.1",) == await resolver.resolve("honest.example")


ENDS = """
import asyncio, socket, time
from tokenmw.providers.network.resolver import Resolver
socket.getaddrinfo = lambda *_, **__: time.sleep(30)
async def main():
    task = asyncio.create_task(Resolver().resolve("dead.example"))
    await asyncio.sleep(0.1)
    task.cancel()
asyncio.run(main())
"""


def test_a_lookup_does_not_delay_the_end_of_the_program() -> None:
    """A program ends while a lookup hangs; with the event loop's executor it would wait for it."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=25, check=False, cwd=ROOT
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert time.monotonic() - began < 15
