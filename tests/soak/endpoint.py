"""A token endpoint on a real socket that keeps no data, so that growth in memory is not its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from typing import Self

__all__ = ["Endpoint"]

# By the last part of the path; any other path gets a token.
_FAILURES = {
    "rejected": (400, b'{"error": "invalid_client"}'),
    "error": (500, b""),
    "garbage": (200, b"<h1>Sign in to the network</h1>"),
    "lifeless": (200, b'{"access_token": "t", "expires_in": null}'),
}


class Endpoint:
    """Grants a new token to each request, or fails in the way that the path names: `rejected`, `error`, `garbage`, ….

    Attributes:
        lifetime: The seconds that its tokens are valid.
        grants: How many it has granted.
    """

    def __init__(self, *, lifetime: float = 3600.0) -> None:
        self.lifetime = lifetime
        self.grants = 0
        self._numbers = itertools.count()
        self._base = ""
        # Bound, but without a listener: connections to its port are refused.
        self._refusing = socket.socket()

    async def __aenter__(self) -> Self:
        self._refusing.bind(("127.0.0.1", 0))
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._base = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._refusing.close()
        self._server.close()
        serving = [task for task in self._connections.values() if task is not None]
        for writer in self._connections:
            writer.close()
        if serving:
            await asyncio.wait(serving)

    def url(self, way: str) -> str:
        """Return the URL that answers in this way; `refused` has no listener."""
        if way == "refused":
            return f"http://127.0.0.1:{self._refusing.getsockname()[1]}/token"
        return f"{self._base}/{way}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.current_task()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
                await reader.readexactly(int(length or 0))
                status, body = self._answer(head.split(b" ", 2)[1].decode().rpartition("/")[2])
                lines = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(lines.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            del self._connections[writer]
            writer.close()

    def _answer(self, way: str) -> tuple[int, bytes]:
        if way in _FAILURES:
            return _FAILURES[way]
        self.grants += 1
        grant = {"access_token": f"token-{next(self._numbers)}", "token_type": "Bearer", "expires_in": self.lifetime}
        return 200, json.dumps(grant).encode()
