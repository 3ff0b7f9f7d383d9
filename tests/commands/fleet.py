"""Several worker processes of a program."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.demo.commands import environment

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parents[2]


class Worker:
    """One process of `tests.commands.worker`.

    Attributes:
        process: The process.
        log: The lines of its log about actions, as far as they were read.
    """

    def __init__(self, directory: Path, target: str) -> None:
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.commands.worker", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=directory,
            env=environment(PYTHONPATH=str(ROOT)),
        )

    def opened(self) -> None:
        """Wait until its broker is open."""
        assert self._line() == "open"

    def ask(self, line: str) -> str:
        """Send a line, and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().rstrip("\n"):
            if not line.startswith("log: "):
                return line
            self.log.append(line.removeprefix("log: "))
        raise AssertionError(f"the worker has ended ({self.process.wait(10)})")


@contextlib.contextmanager
def workers(directory: Path, count: int, *, target: str = "program:broker") -> Generator[list[Worker]]:
    """Start workers of a program in a directory, and end them."""
    started: list[Worker] = []
    try:
        started += [Worker(directory, target) for _ in range(count)]
        for worker in started:
            worker.opened()
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.communicate()
