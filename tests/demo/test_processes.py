"""Child processes of the demo: how they end, and what is reported if they do not start or end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tokenmw.demo.processes import UNTIL_STDIN_CLOSES, Child, DemoFailed, free_port

UNTIL_END_OF_STDIN = "import sys; sys.stdin.read()"


def start(program: str) -> Child:
    """Start a child that runs a line of Python and listens nowhere."""
    return Child("The child", [sys.executable, "-c", program], port=free_port())


def test_a_child_ends_when_its_stdin_closes() -> None:
    """Stopping a child closes its stdin, and waits for it."""
    child = start(UNTIL_END_OF_STDIN)
    child.check()
    child.stop()
    assert child._process.returncode == 0


def test_a_command_that_ignores_its_stdin_is_killed_when_it_closes() -> None:
    """The shell in front of it waits for the end of stdin."""
    child = Child("The child", [*UNTIL_STDIN_CLOSES, sys.executable, "-c", "while True: pass"], port=free_port())
    child.check()
    child.stop()
    assert child._process.returncode is not None
    # The shell was its group's leader; once the command has ended too, the group does not exist.
    with pytest.raises(ProcessLookupError):
        os.killpg(child._process.pid, 0)


def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that ignores the end of its stdin does not keep the demo from ending."""
    monkeypatch.setattr("tokenmw.demo.processes._STOP_SECONDS", 0.1)
    child = start("import time; time.sleep(1000)")
    child.stop()
    assert child._process.returncode == -signal.SIGKILL


def test_a_child_that_ends_by_itself_is_named() -> None:
    """The error has the name and the exit code, while the demo waits for the child and later."""
    child = start("raise SystemExit(7)")
    text = r"^The child \(process \d+\) ended unexpectedly with exit code 7\.$"
    with pytest.raises(DemoFailed, match=text):
        child.wait_until_ready()
    with pytest.raises(DemoFailed, match=text):
        child.check()
    child.stop()


def test_a_child_that_never_listens_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo does not wait for ever."""
    monkeypatch.setattr("tokenmw.demo.processes._START_SECONDS", 0.1)
    child = start(UNTIL_END_OF_STDIN)
    with pytest.raises(DemoFailed, match=r"^The child did not accept connections within 0 s\.$"):
        child.wait_until_ready()
    child.stop()


def test_a_missing_program_is_named() -> None:
    """The error has the program and the operating system's reason."""
    with pytest.raises(DemoFailed, match=r"^The child cannot be started \(/nowhere/program\): No such file"):
        Child("The child", ["/nowhere/program"], port=free_port())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="There is no SIGHUP here.")
def test_an_ignored_hangup_stays_ignored() -> None:
    """Under nohup the demo outlives its terminal."""
    program = (
        "import os, signal, tokenmw.demo.run as run\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "run.running_demo = lambda: os.kill(os.getpid(), signal.SIGHUP) or exit(0)\n"
        "run.run_demo(once=True)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
