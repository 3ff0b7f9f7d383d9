"""A TCP proxy for tests of what lies between a client and a server: slow lines, lost ones, refused ones.

It forwards until it is told otherwise:

    async with Proxy(redis_server.port) as proxy:
        proxy.latency = 0.05          # each chunk, in each direction
        proxy.connect_delay = 0.5     # a new connection forwards nothing for so long: a slow handshake
        proxy.black_hole = True       # connections are accepted, nothing is forwarded
        proxy.cut()                   # all connections are reset
        proxy.cut_replies = True      # half of each reply gets through, then its connection is reset
        proxy.answer = b"-LOADING …"   # what is said is answered so, and the server hears nothing
        await proxy.refuse()          # nobody listens any more
        await proxy.listen()          # somebody does again, on the same port
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Proxy:
    """Forwards connections to a port of this machine. It lives in the event loop of the test.

    Attributes:
        port: Where it listens.
        accepted: Connections that were accepted so far.
        connect_delay: Seconds before a new connection begins to forward.
        latency: Seconds by which each chunk is late.
        black_hole: Whether chunks vanish; also those of connections that stand.
        lose_replies: Whether what the server says vanishes while the server still hears everything.
        cut_replies: Whether a connection is reset in the middle of the server's next chunk.
        answer: What a client gets for each chunk instead of the server's answer, or None.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted = 0
        self.connect_delay = 0.0
        self.latency = 0.0
        self.black_hole = False
        self.lose_replies = False
        self.cut_replies = False
        self.answer: bytes | None = None

    @property
    def url(self) -> str:
        """The way to a Redis behind it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def open_links(self) -> int:
        """How many connections stand now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        self.cut()
        for link in list(self._links):
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    async def listen(self) -> None:
        """Accept connections, on the port of the last time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections; those that stand go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Reset all connections that stand."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = asyncio.create_task(self._link(reader, writer), name=f"proxy link {self.accepted}")
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await asyncio.sleep(self.connect_delay)
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._drop(writer)
            return
        except asyncio.CancelledError:
            self._drop(writer)
            raise
        self._writers.add(server_writer)
        try:
            ways = [
                asyncio.create_task(self._forward(reader, server_writer, back=writer)),
                asyncio.create_task(self._forward(server_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        finally:
            self._drop(writer)
            self._drop(server_writer)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: asyncio.StreamWriter | None = None
    ) -> None:
        """Forward what is read; `back` is the way to who said it, if that is the client."""
        # A reset is what these tests are about, not a fault of theirs.
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if self.latency:
                    await asyncio.sleep(self.latency)
                if self.black_hole or (back is None and self.lose_replies):
                    continue
                if back is not None and self.answer is not None:
                    back.write(self.answer)
                    continue
                if back is None and self.cut_replies:
                    writer.write(chunk[: len(chunk) // 2])
                    await writer.drain()
                    return
                writer.write(chunk)
                await writer.drain()

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()
