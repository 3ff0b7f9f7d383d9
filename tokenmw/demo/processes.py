"""The demo's child processes. Each ends when a pipe from this process closes, even if this process is killed."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from tokenmw.errors import TokenmwError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNTIL_STDIN_CLOSES", "Child", "DemoFailed", "free_port"]

UNTIL_STDIN_CLOSES: Final = ("sh", "-c", 'exec 2>/dev/null; "$@" >/dev/null & read -r _; kill -9 $!; wait', "sh")
"""What to put in front of a command that does not read its stdin."""

_START_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 3.0


class DemoFailed(TokenmwError):
    """Raised when a part of the demo does not start, does not answer, or ends by itself."""


class Child:
    """A child process that listens on a port of this machine and ends when its stdin closes.

    It gets its own session: Ctrl-C then reaches only the demo, which stops the workers before the server.

    Raises:
        DemoFailed: The program cannot be run.
    """

    def __init__(self, name: str, command: Sequence[str], *, port: int, stdin: bytes = b"") -> None:
        self.name = name
        self.port = port
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603  the program is this package's or the wheel's
        except OSError as error:
            raise DemoFailed(f"{name} cannot be started ({command[0]}): {error.strerror}.") from None
        self._send(stdin)

    def check(self) -> None:
        """Raise `DemoFailed` if the process has ended."""
        code = self._process.poll()
        if code is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            raise DemoFailed(f"{self.name} (process {self._process.pid}) ended unexpectedly with {how}.")

    def wait_until_ready(self) -> None:
        """Wait until the process accepts connections; raise `DemoFailed` if it ends or needs more than 15 s."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return
            self.check()
            time.sleep(0.05)
        raise DemoFailed(f"{self.name} did not accept connections within {_START_SECONDS:.0f} s.")

    def close_stdin(self) -> None:
        """Ask the process to end."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def stop(self) -> None:
        """End the process; kill it if it does not end by itself within 3 s."""
        self.close_stdin()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, data: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended, which `check` reports
                self._process.stdin.write(data)
                self._process.stdin.flush()


def free_port() -> int:
    """Return a free port below those that the operating system gives to outgoing connections.

    A client that connects to a port of that range on which nothing listens can be connected to itself.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
