"""Fixtures for all tests: the event loop, real servers, and a guard against leaked tasks."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline, because what is timed is a benchmark. In CI the same examples each time, so that a change is judged by
# what it changes; at home new ones each time, so that they go on finding faults.
settings.register_profile("home", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "home")

GRACE = 0.25
"""Seconds in which a task that is ending anyway may end after its test."""


def pytest_collection_finish() -> None:
    """Take all that was loaded out of the garbage collector's sight.

    With it a collection takes half a second, in which the event loop of some test stands still: longer than a deadline.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: redis-py has nothing for trio, so neither has this package."""
    return "asyncio"


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_shared_redis: RedisServer) -> Iterator[RedisServer]:
    """A running server without keys, scripts and statistics. It is the same process for all tests."""
    for command in ("FLUSHALL", "SCRIPT FLUSH", "CONFIG RESETSTAT"):
        _shared_redis.command(*command.split())
    pid = _shared_redis.pid
    yield _shared_redis
    if not _shared_redis.answers() or pid != _shared_redis.pid:
        _shared_redis.restart()
        pytest.fail("The test has broken the server that all tests share. Outages need private_redis.")


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A server of its own for one test, which may kill, freeze, fill and restart it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def _event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture(autouse=True)
def _no_leaked_tasks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose tasks outlive it and its fixtures: somebody forgot to close something."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    # Asked for here and not as a parameter, since every plain test would get an event loop as well.
    loop: asyncio.AbstractEventLoop = request.getfixturevalue("_event_loop")
    before = asyncio.all_tasks(loop)
    yield
    leaked = asyncio.all_tasks(loop) - before
    if leaked:
        _, leaked = loop.run_until_complete(asyncio.wait(leaked, timeout=GRACE))
    if leaked:
        names = sorted(f"{task.get_name()}: {task.get_coro()!r}" for task in leaked)
        for task in leaked:
            task.cancel()
        loop.run_until_complete(asyncio.wait(leaked, timeout=GRACE))
        pytest.fail("Tasks were still running at the end of the test:\n" + "\n".join(names))
