"""The `tokenmw` command as a separate process, and the processes that it starts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

WITHIN = 60.0
"""Seconds for what takes a few on an idle machine."""


def environment(**settings: str) -> dict[str, str]:
    """Return an environment in which no Redis is named."""
    return {**os.environ, "REDIS_URL": "", "PYTHONIOENCODING": "utf-8", **settings}


def run(*arguments: str, directory: Path, before: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, outside of the source tree; `before` is Python code to run first."""
    program = f"import sys; {before}; from tokenmw.cli import main; sys.exit(main())" if before else None
    command = [sys.executable, "-W", "error", *(["-c", program] if program else ["-m", "tokenmw"]), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=WITHIN,
        check=False,
        cwd=directory,
        env=environment(**settings),
    )


class RunningDemo:
    """`tokenmw demo` after it has printed what to try.

    Attributes:
        process: The command.
        urls: The base URLs of its workers.
    """

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self._directory = directory
        text = self.read_until("Ctrl-C stops everything.")
        self.urls = sorted(set(re.findall(r"http://[\d.:]+", text)), key=text.index)

    def pid(self, name: str) -> int:
        """Return the process id of the one process that has a text in its command line, as its program or module."""
        (found,) = (pid for pid, command in processes_of(self._directory).items() if re.search(name, command))
        return found

    def read_until(self, wanted: str) -> str:
        """Read stdout until a text appears, and return what was read."""
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if wanted in line:
                return text
        raise AssertionError(f"The demo ended without {wanted!r}:\n{text}")

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal, wait for the end, and return the exit code, the rest of stdout, and stderr.

        A terminal sends SIGINT and SIGHUP to the whole group; `kill` sends SIGTERM to one process.
        """
        (os.kill if number == signal.SIGTERM else os.killpg)(self.process.pid, number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        """Wait for the end, and return the exit code, the rest of stdout, and stderr."""
        output, errors = self.process.communicate(timeout=WITHIN)
        return self.process.returncode, output, errors


@contextlib.contextmanager
def running_demo(directory: Path) -> Generator[RunningDemo]:
    """Start `tokenmw demo`, and stop it at the end."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tokenmw", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=directory,
        env=environment(),
        start_new_session=True,
    ) as process:
        try:
            yield RunningDemo(process, directory)
        finally:
            process.terminate()
            try:
                process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()  # its children end with it


def processes_of(directory: Path) -> dict[int, str]:
    """Return the command lines of all running processes in a test's directory, by process id.

    Children inherit the directory. Their environment does not show it: Valkey overwrites its own with a title.
    """
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if (path / "cwd").readlink() == directory:
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true; fail if that takes too long."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
