"""Child processes behave as the tests that use several processes expect."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from tests.processes import WorkerError, Workers, receive, send

HERE = __name__


def describe(**arguments: Any) -> dict[str, Any]:
    """Return the arguments."""
    print("this is not the result")  # noqa: T201
    return {"pid": os.getpid(), **arguments}


async def echo() -> str:
    """Return what the test sends, in capitals."""
    send("ready")
    received: str = await anyio.to_thread.run_sync(receive)
    return received.upper()


def fail() -> None:
    """Raise."""
    raise ValueError("as expected")


async def test_every_process_returns_its_own_result() -> None:
    """Targets receive the arguments, and what they print does not get into their results."""
    async with Workers(f"{HERE}:describe", processes=3, arguments={"url": "x", "n": 1}) as workers:
        pids = [worker.pid for worker in workers]
        assert await workers.results() == [{"pid": pid, "url": "x", "n": 1} for pid in pids]
    assert len(set(pids)) == 3


async def test_targets_can_wait_for_the_test() -> None:
    """Each target waits until the test sends a value."""
    async with Workers(f"{HERE}:echo", processes=2) as workers:
        assert await workers.receive() == ["ready", "ready"]
        await workers.send("go")
        assert await workers.results() == ["GO", "GO"]


async def test_a_killed_process_has_no_result() -> None:
    """After kill(), `results` raises an error with the signal, without waiting for the time-out."""
    async with Workers(f"{HERE}:echo", processes=1) as workers:
        await workers.receive()
        workers[0].kill()
        with pytest.raises(WorkerError, match="with code -9"):
            await workers.results()


async def test_a_frozen_process_is_silent_until_it_is_thawed() -> None:
    """freeze() stops a running process, and thaw() continues it."""
    async with Workers(f"{HERE}:echo", processes=1, within=0.2) as workers:
        assert await workers[0].receive() == "ready"
        workers[0].freeze()
        await workers.send("go")
        with pytest.raises(TimeoutError):
            await workers.results()
        workers[0].thaw()
        assert await workers[0].result() == "GO"


async def test_an_exception_of_a_target_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """The traceback of the child process is in the output of the test."""
    async with Workers(f"{HERE}:fail", processes=1) as workers:
        with pytest.raises(WorkerError, match="with code 1"):
            await workers.results()
    assert "ValueError: as expected" in capfd.readouterr().err


async def test_no_process_outlives_the_test() -> None:
    """Leaving the block kills running and frozen processes."""
    async with Workers(f"{HERE}:echo", processes=2) as workers:
        await workers.receive()
        workers[0].freeze()
        pids = [worker.pid for worker in workers]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
