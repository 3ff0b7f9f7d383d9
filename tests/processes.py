"""Other processes for the tests: several workers of one service, some of which freeze or die.

A target is a function, plain or async, that takes JSON values as keyword arguments and returns one. It runs
in child processes of its own, with sockets and an event loop of its own:

    async def count_fetches(*, url: str) -> int: ...

    async with Workers("tests.stampede:count_fetches", processes=8, arguments={"url": server.url}) as workers:
        fetches = await workers.results()

Between start and result both sides can talk, for instance to begin at the same moment: the target calls
`tell(value)` and `hear()`, the test `await workers.hear()` and `await workers.tell(value)`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import signal
import sys
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import Process

ROOT = Path(__file__).parents[1]
LONGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes of one line of JSON."""
PIPE_VARIABLE = "TOKENMW_TEST_PIPE"


class WorkerError(Exception):
    """Raised when a child process ends without a result. Its own traceback is on stderr."""


class Worker:
    """One child process that runs a target."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._to_child = process.stdin
        self._from_child = BufferedByteReceiveStream(process.stdout)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def tell(self, value: Any) -> None:
        """Send a JSON value, which the target gets from `hear()`."""
        await self._to_child.send(json.dumps(value).encode() + b"\n")

    async def hear(self) -> Any:
        """Wait for what the target says next with `tell()`."""
        return await self._receive("said")

    async def result(self) -> Any:
        """Wait for what the target returns. Raises `WorkerError` if it raised, or was killed."""
        return await self._receive("returned")

    def kill(self) -> None:
        """End the process at once, without any clean-up on its side."""
        self._process.kill()

    def freeze(self) -> None:
        """Stop the process, as a paused container or a suspended machine does."""
        freeze(self.pid)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        thaw(self.pid)

    async def close(self) -> None:
        """End the process if it still runs, also a frozen one, and close its pipes."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.aclose()

    async def _receive(self, kind: str) -> Any:
        try:
            line = await self._from_child.receive_until(b"\n", LONGEST_MESSAGE)
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            code = await self._process.wait()
            raise WorkerError(f"Process {self.pid} ended with exit code {code} and no result.") from None
        message: dict[str, Any] = json.loads(line)
        if kind not in message:
            raise WorkerError(f"Process {self.pid} has not {kind} anything, it sent {message!r}.")
        return message[kind]


class Workers:
    """Several child processes that run the same target, as an async context manager."""

    def __init__(
        self, target: str, *, processes: int, arguments: dict[str, Any] | None = None, within: float = 60.0
    ) -> None:
        self._command = [sys.executable, "-W", "error", "-m", __name__, target, json.dumps(arguments or {})]
        self._count = processes
        self._within = within
        self._workers: list[Worker] = []

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._count):
                process = await anyio.open_process(self._command, stdin=PIPE, stdout=PIPE, stderr=None, cwd=ROOT)
                self._workers.append(Worker(process))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def __getitem__(self, index: int) -> Worker:
        return self._workers[index]

    def __len__(self) -> int:
        return len(self._workers)

    async def tell(self, value: Any) -> None:
        """Send the same JSON value to every process."""
        for worker in self._workers:
            await worker.tell(value)

    async def hear(self) -> list[Any]:
        """Wait until every process has said something. Raises `TimeoutError` after `within` seconds."""
        with anyio.fail_after(self._within):
            return [await worker.hear() for worker in self._workers]

    async def results(self) -> list[Any]:
        """Wait for the results of all. Raises `WorkerError`, or `TimeoutError` after `within` seconds."""
        with anyio.fail_after(self._within):
            return [await worker.result() for worker in self._workers]

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            for worker in self._workers:
                await worker.close()


def freeze(pid: int) -> None:
    """Stop a child process of ours and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    # The signal is only on its way when kill() returns. WNOWAIT leaves the news for whoever owns the process.
    # (macOS has waitid() from Python 3.13 on.)
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def thaw(pid: int) -> None:
    """Let a stopped process go on; one that runs is not disturbed."""
    os.kill(pid, signal.SIGCONT)


def tell(value: Any) -> None:
    """Send a JSON value to the test, from a child process."""
    _send({"said": value})


def hear() -> Any:
    """Wait for what the test says next, in a child process. This blocks the event loop."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError("The test has gone.")
    return json.loads(line)


def _send(message: dict[str, Any]) -> None:
    with open(int(os.environ[PIPE_VARIABLE]), "w", closefd=False) as pipe:
        pipe.write(json.dumps(message) + "\n")


def _main(target: str, arguments: str) -> None:
    # The pipe to the test is ours alone: what the target prints goes to stderr. It is in the environment and
    # not in a global, because this module runs as __main__ and the target imports another copy of it.
    os.environ[PIPE_VARIABLE] = str(os.dup(1))
    os.dup2(2, 1)
    module_name, _, function_name = target.partition(":")
    function = getattr(importlib.import_module(module_name), function_name)
    result = function(**json.loads(arguments))
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    _send({"returned": result})


if __name__ == "__main__":
    _main(*sys.argv[1:])
