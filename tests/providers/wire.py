"""A server that sends the bytes that a test gives it, for responses that no correct HTTP server sends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


class Wire:
    """One open server.

    Attributes:
        url: Its base URL.
        requests: Every request as received: the head and, if it has a content length, the body.
        closed: Set when a client has closed a connection.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[bytes] = []
        self.closed = asyncio.Event()


@contextlib.asynccontextmanager
async def wire(answer: Callable[[asyncio.StreamWriter], Awaitable[None]] | bytes) -> AsyncGenerator[Wire]:
    """Answer every request with some bytes, or as a function writes them, and close the connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.requests.append(await _request(reader))
        try:
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        except ConnectionError:
            opened.closed.set()
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    opened = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield opened
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


def http_answer(status: int, *, headers: str = "", body: bytes = b"") -> bytes:
    """Make a response with the correct content length. `headers` are lines that end in CRLF."""
    return f"HTTP/1.1 {status} Test\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body
