"""Fixtures for all tests: the event loop, real servers, and a check for leaked tasks."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import BlockingError, blockbuster_ctx
from hypothesis import settings

from tests.servers import RedisServer
from tokenmw.redaction import _UNDER_US

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# No deadlines, because durations are measured by the benchmarks. In CI the examples are the same in each run, so that
# a failure is caused by the change; elsewhere they are new in each run, so that they continue to find faults.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

ROOT = Path(__file__).parents[1]
PROCESSES = 3
"""Processes that run the whole suite."""
GRACE = 0.25
"""Seconds in which a task may finish after its test."""
MAY_BLOCK = frozenset(
    {
        ("logging", "callHandlers"),  # handlers are the program's
        ("importlib._bootstrap", "_find_and_load"),  # an extra is imported where it is used first
        ("asyncpg.connect_utils", "_parse_connect_dsn_and_args"),  # it looks for keys in files for each connection
        ("sqlalchemy.dialects.sqlite.pysqlite", "create_connect_args"),  # it makes the path of a new engine absolute
        ("redis.utils", "get_lib_version"),  # redis-py reads a file for each connection of a program's own client
        ("tokenmw.testing.provider_server.running", "running_app"),  # for tests that are not async
        ("tokenmw.testing.provider_server.tls", "make_tls_files"),  # for tests that are not async
    }
)
"""Functions that may block an event loop, by module and name."""
STACK_SHOWN = 14
"""Frames that are shown of a blocking call."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads these options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in several processes, because most tests wait. Selected tests run in this process."""
    option = config.option
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # this is one of the processes, or was started by a test in one
    selected = (
        option.keyword
        or option.markexpr not in config.getini("addopts")
        or not all(
            (config.invocation_params.dir / argument).resolve() in {ROOT, ROOT / "tests"} for argument in config.args
        )
    )
    watched = option.usepdb or option.trace or option.capture == "no"
    # The attribute is missing without pytest-xdist, and not None if the command has -n.
    if getattr(option, "numprocesses", 0) is None and not selected and not watched:
        option.numprocesses = PROCESSES
        option.dist = "loadfile"  # fixtures of a module are made once, and its tests run one after another
        option.loadscopereorder = False
        if sys.dont_write_bytecode:
            _share_bytecode()


def _share_bytecode() -> None:
    """Let this run's processes have bytecode in a directory of their own, where none is written beside the source.

    Tests start hundreds of processes. Each would compile the package again, which is a third of its start.
    """
    directory = tempfile.mkdtemp(prefix="tokenmw-bytecode-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.environ["PYTHONPYCACHEPREFIX"] = directory
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_finish() -> None:
    """Exclude all objects loaded so far from garbage collection.

    A collection of them would block an event loop for half a second, which is longer than a deadline.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: redis-py does not support trio, so neither does this package."""
    return "asyncio"


@pytest.fixture(scope="session")
def _blocking_calls() -> Iterator[list[str]]:
    """The calls that blocked an event loop while a function of this package was running, with their stacks."""
    found: list[str] = []

    class Recorded(BlockingError):
        # Some code goes on after whatever exception it gets, so that raising is not enough.
        def __init__(self, function: str) -> None:
            super().__init__(function)
            found.append(f"{function}\n{''.join(traceback.format_stack()[-STACK_SHOWN:])}")

    with blockbuster_ctx() as blockbuster, pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockbuster.blockbuster.BlockingError", Recorded)
        for function in blockbuster.functions.values():
            function.deactivate()
            function.can_block_predicate = _unless_ours(function.can_block_predicate)
            function.activate()
        yield found


def _unless_ours(may_block: Callable[..., bool]) -> Callable[..., bool]:
    """Return a predicate that allows a call as before, and if the package has not made it."""
    return lambda *args, **options: may_block(*args, **options) or not _is_ours(sys._getframe(2))


def _is_ours(frame: FrameType | None) -> bool:
    # Of the program's code, of which the package calls some and which calls the package, the test decides.
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if (name, frame.f_code.co_name) in MAY_BLOCK:
            return False
        if name.partition(".")[0] not in _UNDER_US:
            return bool(name.startswith("tokenmw"))
        frame = frame.f_back
    return False


@pytest.fixture(autouse=True)
def _no_blocking_calls(_blocking_calls: list[str]) -> Iterator[None]:
    """Fail a test in which the package has blocked an event loop."""
    _blocking_calls.clear()
    yield
    if _blocking_calls:
        pytest.fail("The event loop was blocked:\n" + "\n".join(_blocking_calls))


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_shared_redis: RedisServer) -> Iterator[RedisServer]:
    """A running server without keys, scripts and statistics; all tests share its process."""
    for command in ("FLUSHALL", "SCRIPT FLUSH", "CONFIG RESETSTAT"):
        _shared_redis.command(*command.split())
    pid = _shared_redis.pid
    yield _shared_redis
    if not _shared_redis.answers() or pid != _shared_redis.pid:
        _shared_redis.restart()
        pytest.fail("The test has stopped the server that all tests share. Use private_redis for outages.")


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A server for one test, which may kill, freeze, fill and restart it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def _event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture(autouse=True)
def _no_leaked_tasks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose tasks still run after it and its fixtures: something was not closed."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    # Requested here and not as a parameter, because sync tests need no event loop.
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
