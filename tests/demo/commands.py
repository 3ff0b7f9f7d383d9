"""The `tokenmw` command as a process of its own, with a directory for temporary files that a test can look into."""

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

WITHIN = 30.0
"""Seconds for what takes two on an idle machine."""


def environment(directory: Path, **settings: str) -> dict[str, str]:
    """Return an environment in which temporary files go to a directory, and no Redis is named."""
    return {**os.environ, "TMPDIR": str(directory), "REDIS_URL": "", "PYTHONIOENCODING": "utf-8", **settings}


def run(*arguments: str, directory: Path, before: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, from a directory that is not the project's; `before` is Python to run first."""
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
        env=environment(directory, **settings),
    )


class RunningDemo:
    """`tokenmw demo` after it has said that all is up.

    Attributes:
        text: What it has printed so far.
        pids: The process ids it has named, by `worker 1`, `worker 2` and `Redis`.
        urls: The base URLs of its workers.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = self.read_until("Ctrl-C ends everything.")
        named = re.findall(r"^(worker \d|Redis) +(\S+), process (\d+)$", self.text, re.MULTILINE)
        self.pids = {name: int(pid) for name, _, pid in named}
        self.urls = [url for name, url, _ in named if name != "Redis"]

    def read_until(self, wanted: str) -> str:
        """Read on until a text has come, and return what was read."""
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if wanted in line:
                return text
        raise AssertionError(f"The demo has ended without {wanted!r}:\n{text}")

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal, wait for the end, and return the exit code and what was on stderr.

        A terminal sends its signals to the whole group; what `kill` sends is for one process.
        """
        (os.kill if number == signal.SIGTERM else os.killpg)(self.process.pid, number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and what was on stderr."""
        _, errors = self.process.communicate(timeout=WITHIN)
        return self.process.returncode, errors


@contextlib.contextmanager
def running_demo(directory: Path) -> Generator[RunningDemo]:
    """Start `tokenmw demo`; whatever happens, it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tokenmw", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=directory,
        env=environment(directory),
        start_new_session=True,
    ) as process:
        try:
            yield RunningDemo(process)
        finally:
            process.terminate()
            try:
                process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                # All else ends with it; but then a signal was not obeyed, and the test has failed.
                process.kill()


def is_running(pid: int) -> bool:
    """Tell whether there is a process of this id. Its parent has waited for those that have ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def has_ended(pid: int) -> bool:
    """Tell whether a process whose parent has gone is over, perhaps with nobody to wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return not is_running(pid)


def wait_until(happened: Callable[[], bool]) -> None:
    """Look until something has happened; it is a failure if it has not for long."""
    deadline = time.monotonic() + WITHIN
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)
