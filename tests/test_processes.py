"""Child processes of the tests do what tests across processes rely on."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from tests.processes import WorkerError, Workers, hear, tell

HERE = __name__


def describe(**arguments: Any) -> dict[str, Any]:
    """Return what came in."""
    print("this is not the result")  # noqa: T201
    return {"pid": os.getpid(), **arguments}


async def echo() -> str:
    """Return what the test says."""
    tell("ready")
    word: str = await anyio.to_thread.run_sync(hear)
    return word.upper()


def fail() -> None:
    """Raise."""
    raise ValueError("as asked")


async def test_every_process_returns_its_own_result() -> None:
    """Arguments arrive, results come back, and what a target prints does not get in between."""
    async with Workers(f"{HERE}:describe", processes=3, arguments={"url": "x", "n": 1}) as workers:
        pids = [worker.pid for worker in workers]
        assert await workers.results() == [{"pid": pid, "url": "x", "n": 1} for pid in pids]
    assert len(set(pids)) == 3


async def test_processes_can_be_started_at_the_same_moment() -> None:
    """A target waits for the test's word, plain or async."""
    async with Workers(f"{HERE}:echo", processes=2) as workers:
        assert await workers.hear() == ["ready", "ready"]
        await workers.tell("go")
        assert await workers.results() == ["GO", "GO"]


async def test_a_killed_process_has_no_result() -> None:
    """kill() shows as an error that names the signal, at once and not after a time-out."""
    async with Workers(f"{HERE}:echo", processes=1) as workers:
        await workers.hear()
        workers[0].kill()
        with pytest.raises(WorkerError, match="exit code -9"):
            await workers.results()


async def test_a_frozen_process_is_silent_until_it_is_thawed() -> None:
    """freeze() stops a process in the middle, thaw() lets it finish."""
    async with Workers(f"{HERE}:echo", processes=1, within=0.2) as workers:
        assert await workers[0].hear() == "ready"
        workers[0].freeze()
        await workers.tell("go")
        with pytest.raises(TimeoutError):
            await workers.results()
        workers[0].thaw()
        assert await workers[0].result() == "GO"


async def test_a_target_that_raises_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """The traceback of the child is shown with the test's own output."""
    async with Workers(f"{HERE}:fail", processes=1) as workers:
        with pytest.raises(WorkerError, match="exit code 1"):
            await workers.results()
    assert "ValueError: as asked" in capfd.readouterr().err


async def test_no_process_outlives_the_test() -> None:
    """Leaving the block ends running and frozen processes alike."""
    async with Workers(f"{HERE}:echo", processes=2) as workers:
        await workers.hear()
        workers[0].freeze()
        pids = [worker.pid for worker in workers]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
