"""Child processes for tests: several workers of one service, which a test can freeze and kill.

A target is a function, sync or async, that takes JSON values as keyword arguments and returns one. It runs
in child processes, each with its own sockets and event loop:

    async def count_fetches(*, url: str) -> int: ...

    async with Workers("tests.stampede:count_fetches", processes=8, arguments={"url": server.url}) as workers:
        fetches = await workers.results()

Before the result, both sides can exchange values, for instance to start work at the same time: the target calls
`send(value)` and `receive()`, the test `await workers.receive()` and `await workers.send(value)`.
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
    from collections.abc import Iterator, Sequence

    from anyio.abc import Process

ROOT = Path(__file__).parents[1]
LONGEST_MESSAGE = 16 * 1024 * 1024
"""The maximum length of a line of JSON, in bytes."""
PIPE_VARIABLE = "TOKENMW_TEST_PIPE"


class WorkerError(Exception):
    """Raised when a child process exits without a result. Its traceback is on stderr."""


class Worker:
    """One child process, which runs a target."""

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

    async def send(self, value: Any) -> None:
        """Send a JSON value, which the target's next `receive()` returns."""
        await self._to_child.send(json.dumps(value).encode() + b"\n")

    async def receive(self) -> Any:
        """Wait for the next value that the target sends with `send()`."""
        return await self._receive("sent")

    async def result(self) -> Any:
        """Wait for the return value of the target. Raises `WorkerError` if it raised or was killed."""
        return await self._receive("returned")

    def kill(self) -> None:
        """Kill the process; it cannot clean up."""
        self._process.kill()

    def freeze(self) -> None:
        """Stop the process, like a paused container or a suspended machine."""
        freeze(self.pid)

    def thaw(self) -> None:
        """Continue a frozen process."""
        thaw(self.pid)

    async def close(self) -> None:
        """Kill the process if it still runs or is frozen, and close its pipes."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.aclose()

    async def _receive(self, kind: str) -> Any:
        try:
            line = await self._from_child.receive_until(b"\n", LONGEST_MESSAGE)
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            code = await self._process.wait()
            raise WorkerError(f"Process {self.pid} exited with code {code} and without a result") from None
        message: dict[str, Any] = json.loads(line)
        if kind not in message:
            raise WorkerError(f"Process {self.pid} has not {kind} a value; it wrote {message!r}")
        return message[kind]


class Workers:
    """Several child processes that run the same target; an async context manager.

    `within` is the number of seconds that `receive` and `results` wait. `own` has further arguments of each process.
    """

    def __init__(
        self,
        target: str,
        *,
        processes: int,
        arguments: dict[str, Any] | None = None,
        own: Sequence[dict[str, Any]] = (),
        within: float = 60.0,
    ) -> None:
        command = [sys.executable, "-W", "error", "-m", __name__, target]
        self._commands = [[*command, json.dumps({**(arguments or {}), **mine})] for mine in own or [{}] * processes]
        assert len(self._commands) == processes
        self._within = within
        self._workers: list[Worker] = []

    async def __aenter__(self) -> Self:
        try:
            for command in self._commands:
                process = await anyio.open_process(command, stdin=PIPE, stdout=PIPE, stderr=None, cwd=ROOT)
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

    async def send(self, value: Any) -> None:
        """Send the same JSON value to every process."""
        for worker in self._workers:
            await worker.send(value)

    async def receive(self) -> list[Any]:
        """Wait for one value of every process. Raises `TimeoutError` after `within` seconds."""
        with anyio.fail_after(self._within):
            return [await worker.receive() for worker in self._workers]

    async def results(self) -> list[Any]:
        """Wait for the results of all processes. Raises `WorkerError`, or `TimeoutError` after `within` seconds."""
        with anyio.fail_after(self._within):
            return [await worker.result() for worker in self._workers]

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            for worker in self._workers:
                await worker.close()


def freeze(pid: int) -> None:
    """Stop a child process of this one, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    # kill() returns before the signal is delivered. WNOWAIT leaves the status for the owner of the process to read.
    # (On macOS, Python has waitid() since 3.13.)
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def thaw(pid: int) -> None:
    """Continue a stopped process. Has no effect on a running one."""
    os.kill(pid, signal.SIGCONT)


def send(value: Any) -> None:
    """Send a JSON value to the test, from a child process."""
    _write({"sent": value})


def receive() -> Any:
    """Wait for the next value that the test sends, in a child process. This blocks the event loop."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError("The test has exited")
    return json.loads(line)


def _write(message: dict[str, Any]) -> None:
    with open(int(os.environ[PIPE_VARIABLE]), "w", closefd=False) as pipe:
        pipe.write(json.dumps(message) + "\n")


def _main(target: str, arguments: str) -> None:
    # Only `_write` uses the pipe to the test: what the target prints goes to stderr. The pipe is in the environment and
    # not in a global, because this module runs as __main__ and the target imports another copy of it.
    os.environ[PIPE_VARIABLE] = str(os.dup(1))
    os.dup2(2, 1)
    module_name, _, function_name = target.partition(":")
    function = getattr(importlib.import_module(module_name), function_name)
    result = function(**json.loads(arguments))
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    _write({"returned": result})


if __name__ == "__main__":
    _main(*sys.argv[1:])
