"""A small synchronous Redis client, so that a test never asks the code under test what the server holds.

It speaks RESP2: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Self


class RedisServerError(Exception):
    """Raised when the server answers a command with an error."""


class RespConnection:
    """One connection to a server, at `(host, port)` or at the path of a unix socket.

    `within` is the number of seconds each step may take: connecting, sending and every read. What the
    operating system has to say about it (`ConnectionRefusedError`, `TimeoutError` …) is raised as it is.
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
        Raises `RedisServerError` for an error reply and `ConnectionError` when the server hangs up.
        """
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        bulks = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n%b" % (len(parts), bulks))
        return self._read()

    def _read(self) -> Any:
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("The server hung up before its reply was complete.")
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
                raise RedisServerError(f"The server answered with something that is not RESP2: {line!r}.")

    def _read_bulk(self, *, length: int) -> bytes:
        data = self._replies.read(length + 2)
        if len(data) != length + 2:
            raise ConnectionResetError("The server hung up in the middle of a value.")
        return data[:-2]

    def _read_array(self, *, length: int) -> list[Any]:
        items: list[Any] = []
        for _ in range(length):
            try:
                items.append(self._read())
            except RedisServerError as error:
                # An error inside of an array (EXEC has them) is data, and the rest must be read too.
                items.append(error)
        return items
