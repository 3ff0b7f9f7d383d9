"""Processes that end with the demo, and what is said if they do not start, hang or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tokenmw.demo.children import Child, Children, DemoFailed, DemoInterrupted
from tokenmw.demo.valkey import running_valkey

UNTIL_STDIN_ENDS = "import sys; sys.stdin.read()"


def start(children: Children, program: str, *, directory: Path) -> Child:
    """Start a child that runs a line of Python."""
    command = [sys.executable, "-c", program]
    return children.start("The child", command, cwd=directory, env=os.environ, stdout=subprocess.PIPE)


def test_a_child_ends_with_its_stdin(tmp_path: Path) -> None:
    """Ended children are gone, and their end is no failure."""
    with Children() as children:
        child = start(children, UNTIL_STDIN_ENDS, directory=tmp_path)
        children.check()
        children.end(child)
        assert child.process.returncode == 0
        children.check()


def test_a_child_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a child does keeps the demo from ending."""
    monkeypatch.setattr("tokenmw.demo.children._END_SECONDS", 0.1)
    with Children() as children:
        child = start(children, "import time; time.sleep(1000)", directory=tmp_path)
        children.end(child)
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_that_ended_by_itself_is_named(tmp_path: Path) -> None:
    """Whoever waits for anything hears of it, with the exit code."""
    with Children() as children:
        child = start(children, "raise SystemExit(7)", directory=tmp_path)
        with pytest.raises(DemoFailed, match=r"^The child \(process \d+\) has ended with exit code 7\.$"):
            children.wait(lambda: None, seconds=30, what="Nothing")
        children.end(child)


def test_waiting_ends_and_says_for_what(tmp_path: Path) -> None:
    """A part that hangs is named."""
    with Children() as children, pytest.raises(DemoFailed, match=r"^Worker 1's start took more than 0 s\.$"):
        children.wait(lambda: None, seconds=0.01, what="Worker 1's start")


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    """What the operating system says is in the text."""
    with Children() as children, pytest.raises(DemoFailed, match=r"^Valkey does not start: No such file"):
        children.start("Valkey", [str(tmp_path / "none")], cwd=tmp_path, env={}, stdout=subprocess.PIPE)


def test_signals_wait_for_the_next_look_and_handlers_come_back() -> None:
    """A signal is an error where the demo looks for it, and what was set before is set again."""
    before = signal.getsignal(signal.SIGTERM)
    with Children() as children:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(DemoInterrupted) as interrupted:
            children.check()
    assert interrupted.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="There is no SIGHUP here.")
def test_an_ignored_hangup_stays_ignored() -> None:
    """Under nohup the demo outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Children() as children:
            os.kill(os.getpid(), signal.SIGHUP)
            children.check()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("said", "starts"), [("bad directive", 1), ("Address already in use", 3)])
def test_a_valkey_that_does_not_start_says_why(tmp_path: Path, said: str, starts: int) -> None:
    """The last line of its log is in the text; a port that somebody else took is tried again with another one."""
    program = tmp_path / "valkey-server"
    program.write_text(f"#!/bin/sh\necho start >>{tmp_path}/starts\necho '{said}'\nexit 1\n")
    program.chmod(0o755)
    expected = "no free port" if starts > 1 else f"has ended with exit code 1. {said}"
    with (
        Children() as children,
        pytest.raises(DemoFailed) as failed,
        running_valkey(program, directory=tmp_path, children=children),
    ):
        raise AssertionError("It has not started.")
    assert expected in str(failed.value)
    assert len((tmp_path / "starts").read_text().splitlines()) == starts
