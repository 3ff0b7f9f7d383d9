"""A process that forks while its broker is open and listens: the child leaves the connections of the parent alone."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.hints import SECRET, listeners
from tests.processes import Workers, receive, send
from tests.proxies import Proxy
from tests.redis.waiting import until
from tokenmw import Limits, TokenBroker
from tokenmw.observe.events import TokenInvalidated
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
QUICK = 1.0
"""Seconds in which a hint has its effect; a listener that hears nothing connects again after 2.25 s."""


class Listening:
    """A broker that notes when its token was invalidated."""

    def __init__(self, url: str) -> None:
        self._dropped_at = 0.0
        self.broker = TokenBroker(
            {"crm": StaticToken(lambda: "value", credential_id="one")},
            redis=url,
            secret_key=SECRET,
            observers=[self._observe],
            limits=Limits(command_seconds=5.0),
        )

    def _observe(self, event: object) -> None:
        if isinstance(event, TokenInvalidated):
            self._dropped_at = time.time()

    async def report(self, process: str) -> None:
        """Get the token, and report when it was dropped because another process has invalidated it."""
        await self.broker.token("crm")
        self._dropped_at = 0.0
        send([process, "has the token"])
        async with asyncio.timeout(20):
            while not self._dropped_at:  # noqa: ASYNC110  an event would belong to one of two event loops
                await asyncio.sleep(0.01)
        send([process, self._dropped_at])


async def in_child(one: Listening) -> None:
    """Use the broker in a forked process, after everything that it does not need has been deleted."""
    gc.collect()
    async with one.broker:
        gc.collect()
        await one.report("child")


def fork(one: Listening) -> int:
    """Fork, and use the broker in the child, which exits then. Return its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking with threads
        pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(in_child(one))
        finally:
            os._exit(0)
    return pid


async def in_parent(one: Listening, forked: Callable[[], int]) -> None:
    """Fork while the broker listens, and report what it hears while the child runs, and afterwards."""
    async with one.broker:
        await one.broker.token("crm")
        send(["parent", "open"])
        await asyncio.to_thread(receive)
        pid = forked()
        await one.report("parent")
        await asyncio.to_thread(os.waitpid, pid, 0)
        await one.report("parent")
        await asyncio.to_thread(receive)  # the test sees its connections first


def forks_in_the_loops_thread(*, url: str) -> None:
    """Fork inside of a coroutine: the child still has the parent's event loop."""
    one = Listening(url)
    asyncio.run(in_parent(one, lambda: fork(one)))


def forks_in_another_thread(*, url: str) -> None:
    """Fork in a thread without an event loop: the child deletes the parent's loop, its tasks and transports."""
    one = Listening(url)
    wanted, done, pids = threading.Event(), threading.Event(), list[int]()

    def forked() -> int:
        wanted.set()
        assert done.wait(20)
        return pids[0]

    thread = threading.Thread(target=lambda: asyncio.run(in_parent(one, forked)))
    thread.start()
    assert wanted.wait(20)
    pids.append(fork(one))
    done.set()
    thread.join()


@pytest.mark.parametrize("where", ["in_the_loops_thread", "in_another_thread"])
@pytest.mark.parametrize("latency", [0.0, 0.2])
async def test_a_fork_leaves_the_listener_of_the_parent_alone(
    redis_server: RedisServer, where: str, latency: float
) -> None:
    """Parent and child hear each hint, and the parent over the connection that it had before."""
    async with Proxy(redis_server.port) as proxy:
        proxy.latency = latency
        target = f"{__name__}:forks_{where}"
        async with Workers(target, processes=1, arguments={"url": proxy.url}) as workers:
            (worker,) = workers
            assert ["parent", "open"] == await worker.receive()
            await until(lambda: listeners(redis_server) == 1, within=10)
            (before,) = subscribers(redis_server)
            await worker.send("fork")
            await dropped(redis_server, worker, {"parent", "child"}, latency=latency)
            await dropped(redis_server, worker, {"parent"}, latency=latency)
            assert {before} == subscribers(redis_server)
            await worker.send("close")
            await workers.results()


async def dropped(server: RedisServer, worker: Any, processes: set[str], *, latency: float) -> None:
    """Invalidate the token when these processes have it, and check that they notice it."""
    async with asyncio.timeout(30):
        assert {(process, "has the token") for process in processes} == {
            tuple(await worker.receive()) for _ in processes
        }
        await until(lambda: listeners(server) == len(processes), within=10)
        began = time.time()
        async with TokenBroker(
            {"crm": StaticToken(lambda: "value", credential_id="one")}, redis=server.url, secret_key=SECRET, hints=True
        ) as other:
            await other.invalidate_provider("crm")
            for _ in processes:
                _process, at = await worker.receive()
                assert at - began < QUICK + 4 * latency


def subscribers(server: RedisServer) -> set[bytes]:
    """Return the ids of the connections that listen."""
    lines: list[bytes] = server.command("CLIENT", "LIST").splitlines()
    return {line.split()[0] for line in lines if b" sub=1 " in line}
