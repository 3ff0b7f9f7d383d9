"""A real PostgreSQL server for tests, of Debian's package, run by a user without privileges."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import pytest

from tests.ports import free_port

START_WITHIN = 60.0
"""Seconds in which a started server must take connections."""
_USERS = ("postgres", "nobody")  # the server refuses to run as root


def find_binaries() -> Path | None:
    """Find the directory of the server's programs: $POSTGRES_BIN, Debian's newest, or that of `postgres` on PATH."""
    if chosen := os.environ.get("POSTGRES_BIN"):
        return Path(chosen)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def require_postgres() -> Path:
    """Find the server's programs. Without them, skip the test; if TOKENMW_REQUIRE_POSTGRES is set, fail it."""
    if (found := find_binaries()) is not None:
        return found
    reason = "PostgreSQL was not found. Install it (apt-get install postgresql), or set POSTGRES_BIN."
    if os.environ.get("TOKENMW_REQUIRE_POSTGRES"):
        pytest.fail(reason)
    pytest.skip(reason)


class PostgresServer:
    """One server on a free port of 127.0.0.1, with its data in a temporary directory."""

    def __init__(self, *options: str) -> None:
        self._binaries = require_postgres()
        self._options = options
        self._user: str | None = None
        if os.geteuid() == 0:
            self._user = next(name for name in _USERS if _exists(name))
        self._directory = Path()
        self._process: subprocess.Popen[Any] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="tokenmw-postgres-"))
        atexit.register(self.stop)
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        self._run("initdb", "-D", self._data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        for _ in range(5):  # another process can take the port before the server does
            self.port = free_port()
            if self._launch():
                return self
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log}")

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy."""
        return f"postgresql+asyncpg://tester:a-password@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> str:
        """The output of the server so far."""
        return (self._directory / "server.log").read_text(errors="replace")

    def command(self, sql: str) -> str:
        """Run SQL, and return what it prints."""
        command = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", "-d", "postgres", "-Atqc", sql]
        return self._run(*command).strip()

    def freeze(self) -> None:
        """Stop all of its processes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue all of its processes."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it without any preparation, as a crash does."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.wait()

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same port with its data."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        if not self._launch():
            raise RuntimeError(f"PostgreSQL did not start again:\n{self.log}")

    def stop(self) -> None:
        """Kill it in any state, and remove its directory."""
        atexit.unregister(self.stop)
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._process = None
        if self._directory != Path():
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = Path()

    @property
    def _data(self) -> str:
        return str(self._directory / "data")

    def _launch(self) -> bool:
        options = ["-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        # A crash of the machine is not tested, and each commit would wait for the disk.
        options += ["-c", "shared_buffers=16MB", *self._options]
        with (self._directory / "server.log").open("ab") as log:
            process: subprocess.Popen[Any] = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._as_user(),
            )
        self._process = process
        deadline = time.monotonic() + START_WITHIN
        while process.poll() is None and time.monotonic() < deadline:
            if (
                subprocess.run(
                    [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
                ).returncode
                == 0
            ):
                return True
            time.sleep(0.05)
        return False

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._binaries / program), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user())
        if run.returncode:
            raise RuntimeError(f"{program} failed: {run.stderr}")
        return str(run.stdout)

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": self._directory}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": self._directory}

    def _signal(self, number: int) -> None:
        assert self._process is not None
        main = self._process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for pid in (main, *map(int, children)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # a process of a connection that was closed meanwhile
                continue


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
