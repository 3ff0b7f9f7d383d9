"""A load generator that is cheap beside the server: keep-alive connections with one request at a time."""

from __future__ import annotations

import asyncio
import time

__all__ = ["ask", "loaded"]


class _Connection(asyncio.Protocol):
    """Sends the same request `count` times, each after the answer to the one before."""

    def __init__(self, request: bytes, count: int) -> None:
        self._request = request
        self._left = count
        self._got = b""
        self._length = 0
        self.last = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._length:
            head, _, _ = self._got.partition(b"\r\n\r\n")
            if len(head) == len(self._got):
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._length = len(head) + 4 + int(length)
        if len(self._got) < self._length:
            return
        if not self._got.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(AssertionError(f"the server answered {self._got[:80]!r}"))
            return
        self.last, self._got, self._length = self._got[: self._length], self._got[self._length :], 0
        self._left -= 1
        if self._left:
            self._transport.write(self._request)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done.done():
            return
        if self._left:
            self.done.set_exception(AssertionError("the server closed the connection"))
        else:
            self.done.set_result(None)


async def loaded(port: int, request: bytes, *, count: int, connections: int) -> float:
    """Return the requests per second that a server answers on `connections` connections."""
    began = time.perf_counter()
    await asyncio.gather(*(_asked(port, request, count // connections) for _ in range(connections)))
    return count // connections * connections / (time.perf_counter() - began)


async def ask(port: int, request: bytes) -> bytes:
    """Send one request, and return the body of the answer."""
    return (await _asked(port, request, 1)).partition(b"\r\n\r\n")[2]


async def _asked(port: int, request: bytes, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: _Connection(request, count), "127.0.0.1", port)
    await connection.done
    return connection.last
