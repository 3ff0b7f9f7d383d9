"""Prometheus metrics of several worker processes: those of one that was killed do not remain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="prometheus_client needs fork for it")


def worker(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a worker that writes its metrics to a folder."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-m", "tests.observe.worker", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def metrics_after(process: subprocess.Popen[str]) -> list[str]:
    """Return what a worker prints at its end: the metrics of all workers."""
    printed, _ = process.communicate(timeout=30)
    assert 0 == process.returncode
    return printed.splitlines()


def test_a_killed_worker_does_not_keep_the_state_down(tmp_path: Path) -> None:
    """It died while Redis was unavailable to it; the worker that is alive uses Redis."""
    dead = worker(tmp_path, "down", "60")
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    assert "tokenmw_shared_up 1.0" in metrics_after(worker(tmp_path, "up", "2.5"))


def test_a_worker_that_lives_counts(tmp_path: Path) -> None:
    """The lowest value of all workers is reported, as long as the one that has it is alive."""
    alive = worker(tmp_path, "down", "6")
    try:
        assert "tokenmw_shared_up 0.0" in metrics_after(worker(tmp_path, "up", "2.5"))
    finally:
        alive.kill()
        alive.communicate()


def test_a_killed_worker_that_was_forked_does_not_keep_the_state_down(tmp_path: Path) -> None:
    """The observer was made before the fork; its lock is the parent's, and each worker has one of its own."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.observe.forking"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert 0 == run.returncode, run.stderr
    assert ["1.0", "0.0", "1.0"] == [line.split()[-1] for line in run.stdout.splitlines()]
