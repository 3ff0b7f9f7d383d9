"""A proxy in front of Redis that understands commands, and refuses some of them, as twemproxy and its like do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

__all__ = ["RefusingProxy"]


class RefusingProxy:
    """Forwards one command after the other to a port of this machine.

    Attributes:
        port: The port of the proxy.
        answers: What a client receives for each command of these names, in upper case, instead of the server's reply.
        replaced: Bytes that are replaced in the server's replies, and by what; both have the same length.
    """

    def __init__(self, target: int, answers: dict[str, bytes], *, replaced: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._target = target
        self._links: set[asyncio.Task[None]] = set()
        self.answers = answers
        self.replaced = replaced
        self.port = 0

    @property
    def url(self) -> str:
        """The URL of a Redis server behind the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in list(self._links):
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.ensure_future(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    command = await _read(reader)
                    name = command.split(b"\r\n")[2].decode().upper()
                    if name not in self.answers:
                        server_writer.write(command)
                        reply = await _read(server_reader)
                        writer.write(reply.replace(*self.replaced) if self.replaced[0] else reply)
                    else:
                        writer.write(self.answers[name])
                    await writer.drain()
        finally:
            writer.transport.abort()
            server_writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Read one command or reply, whole, in RESP 2 or 3."""
    line = await reader.readuntil(b"\r\n")
    kind, count = line[:1], line[1:-2]
    if kind in b"$=!":
        return line + (await reader.readexactly(int(count) + 2) if int(count) >= 0 else b"")
    if kind in b"*~>%":
        items = max(0, int(count)) * (2 if kind == b"%" else 1)
        return line + b"".join([await _read(reader) for _ in range(items)])
    return line
