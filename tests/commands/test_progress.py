"""What a command shows while it waits: on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.demo.commands import WITHIN, environment

if TYPE_CHECKING:
    from tests.commands.programs import Program
    from tests.servers import RedisServer


@pytest.mark.parametrize("terminal", [True, False])
def test_what_takes_more_than_a_second_is_shown_on_a_terminal(
    program: Program, private_redis: RedisServer, *, terminal: bool
) -> None:
    """Its stderr says what the command waits for, and is clean afterwards; stdout has nothing of it."""
    program.write(private_redis.url)
    ours, theirs = pty.openpty()
    private_redis.freeze()
    try:
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tokenmw", "inspect", "program:broker"],
            stdout=subprocess.PIPE,
            stderr=theirs if terminal else subprocess.PIPE,
            cwd=program.directory,
            env=environment(),
        ) as process:
            os.close(theirs)
            output, errors = process.communicate(timeout=WITHIN)
    finally:
        private_redis.thaw()
    shown = os.read(ours, 1 << 16) if terminal else errors
    os.close(ours)
    assert (process.returncode, output) == (1, b"")
    assert (f"Reading from 127.0.0.1:{private_redis.port} (1 s)".encode() in shown) == terminal
    assert (b"\x1b" in shown) == terminal
    assert f"tokenmw inspect: Redis: 127.0.0.1:{private_redis.port} cannot be used (timeout)".encode() in shown
