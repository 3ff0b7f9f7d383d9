"""What ends the demo's server if the demo itself cannot: a process that waits for the demo's end, however it comes.

Whoever is killed with SIGKILL ends nothing. The workers notice by their stdin; a server does not read its own. So a
small process has a pipe from the demo, hears in it which server runs, and when the pipe ends, kills that server and
removes the directory. It is this file, run by its path: alone, so that it starts in a moment and imports nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Watch"]

_NOBODY: Final = 0
_END_SECONDS: Final = 3.0


class Watch:
    """The process, seen from the demo. Inside of its `with`, a server that it was told of does not outlive the demo.

    Args:
        directory: What is removed with the server.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603  this very file
            [sys.executable, "-I", "-S", __file__, str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C and the end of a terminal reach a whole group.
            start_new_session=True,
        )
        return self

    def __exit__(self, *_exc: object) -> None:
        self.tell(_NOBODY)
        with contextlib.suppress(OSError):
            self._pipe.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, pid: int = _NOBODY) -> None:
        """Tell which server runs now, by its process id; none, before that id may become another process's."""
        # Somebody may have killed it: then there is nobody to tell, and the demo goes on.
        with contextlib.suppress(OSError):
            self._pipe.write(f"{pid}\n".encode())
            self._pipe.flush()

    @property
    def _pipe(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise RuntimeError("It is started with a pipe for its stdin.")
        return self._process.stdin


def _watch(directory: str) -> None:
    """Wait for the end of stdin; then end the server that was told of last."""
    pid = _NOBODY
    for line in sys.stdin:
        pid = int(line)
    if pid != _NOBODY:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _watch(sys.argv[1])
