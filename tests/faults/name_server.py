"""The lookups of one host name, which a test makes fail, hang, or return another address; in a worker."""

from __future__ import annotations

import socket
import threading
from typing import Any, Final

__all__ = ["HOST", "Resolver"]

HOST: Final = "redis.example"
_getaddrinfo = socket.getaddrinfo


class Resolver:
    """Replaces the system's lookups of `redis.example`; those of other names are not changed."""

    def __init__(self) -> None:
        self._address = "127.0.0.1"
        self._answers = threading.Event()
        self._answers.set()

    def install(self) -> None:
        """Replace `socket.getaddrinfo`, for the rest of this process."""
        socket.getaddrinfo = self

    def answer(self, address: str) -> None:
        """Return this address from now on; "" is none, and with "hang" the lookups wait for the next call."""
        if address == "hang":
            self._answers.clear()
        else:
            self._address = address
            self._answers.set()

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != HOST:
            return _getaddrinfo(host, port, *args, **options)
        self._answers.wait()
        if not self._address:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self._address, port or 0))]
