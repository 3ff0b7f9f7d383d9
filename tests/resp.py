"""A small synchronous Redis client, so that tests read a server without the code under test.

It implements RESP2: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Self


class RedisServerError(Exception):
    """Raised when the reply to a command is an error."""


class RespConnection:
    """One connection to a server, at `(host, port)` or at the path of a unix socket.

    `within` is the time-out in seconds of each step: connecting, sending and every read. Errors of the operating system
    (`ConnectionRefusedError`, `TimeoutError` …) are raised unchanged.
    """

    def __init__(self, address: tuple[str, int] | Path, *, within: float = 5.0) -> None:
        if isinstance(address, Path):
            self._socket = socket.socket(socket.AF_UNIX)
        else:
            self._socket = socket.socket(socket.AF_INET)
        try:
            self._socket.settimeout(within)
            self._socket.connect(str(address) if isinstance(address, Path) else address)
        except BaseException:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._replies.close()
        self._socket.close()

    def call(self, *words: str | bytes | float) -> Any:
        """Send one command and return its reply.

        Simple strings are `str`, bulk strings `bytes`, arrays `list`; null is `None`.
        Raises `RedisServerError` for an error reply, and `ConnectionError` if the server closes the connection.
        """
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        bulks = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n%b" % (len(parts), bulks))
        return self._read()

    def _read(self) -> Any:
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("The server closed the connection before its reply was complete")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return rest.decode()
            case b"-":
                raise RedisServerError(rest.decode())
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self._read_bulk(length=int(rest))
            case b"*":
                return None if rest == b"-1" else self._read_array(length=int(rest))
            case _:
                raise RedisServerError(f"The reply is not RESP2: {line!r}")

    def _read_bulk(self, *, length: int) -> bytes:
        data = self._replies.read(length + 2)
        if len(data) != length + 2:
            raise ConnectionResetError("The server closed the connection in the middle of a value")
        return data[:-2]

    def _read_array(self, *, length: int) -> list[Any]:
        items: list[Any] = []
        for _ in range(length):
            try:
                items.append(self._read())
            except RedisServerError as error:
                # An error inside of an array, as in the reply to EXEC, is data; the other items must be read, too.
                items.append(error)
        return items
