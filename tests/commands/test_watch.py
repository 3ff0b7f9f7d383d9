"""`tokenmw watch`: live on a terminal, plain in a pipe, and ended by Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.demo.commands import WITHIN, environment
from tokenmw.commands.watch import fitted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.commands.programs import Program
    from tests.servers import RedisServer


def start(program: Program, *arguments: str, terminal: int | None = None) -> subprocess.Popen[bytes]:
    """Start the command; on a terminal, if one is given."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tokenmw", "watch", "program:broker", *arguments],
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE,
        cwd=program.directory,
        env=environment(),
    )


def test_what_a_small_terminal_does_not_show_is_said() -> None:
    """A cut line ends with `…`, and the last line says how many are below."""
    lines = ["provider crm", "  token      none", "  lease      none", "", "instances 2"]
    assert fitted(lines, columns=80, rows=5) == lines
    assert fitted(lines, columns=15, rows=5)[1] == "  token      n…"
    assert fitted(lines, columns=80, rows=3) == [
        *lines[:2],
        "… 3 more lines: enlarge the terminal, or name one provider",
    ]
    assert fitted(lines, columns=10, rows=1) == ["… 5 more …"]


def test_in_a_pipe_each_reading_is_appended(program: Program, private_redis: RedisServer) -> None:
    """There is no escape sequence; an outage is shown, and does not end it; Ctrl-C does, with exit code 0."""
    program.write(private_redis.url)
    with start(program, "--interval", "0.2") as process:
        assert process.stdout is not None
        text = b""
        while text.count(b"provider crm") < 2:
            text += process.stdout.readline()
        private_redis.kill()
        while b"FAIL redis: 127.0.0.1:" not in text or b"(refused): nothing listens there" not in text:
            text += process.stdout.readline()
        private_redis.restart()
        seen = text.count(b"provider crm")
        while text.count(b"provider crm") == seen:
            text += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=WITHIN)
    assert (process.returncode, b"\x1b" in text + rest, b"Traceback" in errors) == (0, False, False)


def test_json_is_an_object_on_each_line(program: Program, redis_server: RedisServer) -> None:
    """Each has the time and what `inspect` shows."""
    program.write(redis_server.url)
    with start(program, "crm", "--interval", "0.1", "--json") as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WITHIN)
    assert process.returncode == 0
    assert first["time"] < second["time"]
    assert [one["provider"] for one in second["providers"]] == ["crm"]


def test_on_a_terminal_it_is_drawn_in_place(program: Program, redis_server: RedisServer) -> None:
    """After Ctrl-C the former screen and the cursor are back."""
    program.write(redis_server.url)
    ours, theirs = pty.openpty()
    with start(program, "--interval", "0.1", terminal=theirs) as process:
        os.close(theirs)
        text = read(ours, until=lambda text: text.count(b"provider crm") >= 2)
        process.send_signal(signal.SIGINT)
        text += read(ours, until=lambda text: b"\x1b[?1049l" in text)
        process.communicate(timeout=WITHIN)
    os.close(ours)
    assert process.returncode == 0
    assert text.count(b"\x1b[?1049h\x1b[?25l") == 1
    assert text.count(b"\x1b[H") >= 2
    assert text.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")


def test_once_is_as_inspect(program: Program, redis_server: RedisServer) -> None:
    """It shows one reading and has the exit code of `inspect`; an unknown provider is one line."""
    program.write(redis_server.url)
    code, output, _ = program.call("watch", "--once")
    assert code == 0
    assert output.count("provider crm") == 1
    code, output, errors = program.call("watch", "crn")
    assert (code, output) == (1, "")
    assert "tokenmw watch: There is no provider 'crn'" in errors


def read(terminal: int, *, until: Callable[[bytes], bool]) -> bytes:
    """Read what is drawn on a terminal until it is enough."""
    text, deadline = b"", time.monotonic() + WITHIN
    while not until(text):
        assert time.monotonic() < deadline, text
        if select.select([terminal], [], [], 1.0)[0]:
            text += os.read(terminal, 1 << 16)
    return text
