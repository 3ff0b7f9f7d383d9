"""A TCP proxy that makes the faults of a network: delays, lost data, reset and refused connections.

It forwards everything until a test changes it:

    async with Proxy(redis_server.port) as proxy:
        proxy.latency = 0.05          # seconds for each chunk, in each direction
        proxy.connect_delay = 0.5     # seconds before a new connection forwards: a slow handshake
        proxy.black_hole = True       # accepts connections, forwards nothing
        proxy.cut()                   # resets all connections
        proxy.cut_replies = True      # forwards half of a reply, then resets its connection
        proxy.answer = b"-LOADING …"   # the reply to each chunk; the server receives nothing
        await proxy.refuse()          # refuses new connections
        await proxy.listen()          # accepts them again, on the same port
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Proxy:
    """Forwards connections to a port of this machine, in the event loop of the test.

    Attributes:
        port: The port of the proxy.
        accepted: The number of connections accepted so far.
        connect_delay: Seconds before a new connection begins to forward.
        latency: Seconds by which each chunk is delayed.
        black_hole: Whether all chunks are dropped, also those of open connections.
        lose_replies: Whether the server's chunks are dropped, while it receives everything.
        cut_replies: Whether a connection is reset in the middle of the server's next chunk.
        answer: What a client receives for each chunk instead of the server's reply, or None.
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
        """The URL of a Redis server behind the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def open_links(self) -> int:
        """The number of open connections."""
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
        """Accept connections; after `refuse`, on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections; open ones are not changed."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Reset all open connections."""
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
            directions = [
                asyncio.create_task(self._forward(reader, server_writer, client=writer)),
                asyncio.create_task(self._forward(server_reader, writer)),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.wait(directions)
        finally:
            self._drop(writer)
            self._drop(server_writer)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: asyncio.StreamWriter | None = None
    ) -> None:
        """Forward all chunks in one direction; `client` is given if they come from the client."""
        # Resets are expected: they are under test.
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if self.latency:
                    await asyncio.sleep(self.latency)
                if self.black_hole or (client is None and self.lose_replies):
                    continue
                if client is not None and self.answer is not None:
                    client.write(self.answer)
                    continue
                if client is None and self.cut_replies:
                    writer.write(chunk[: len(chunk) // 2])
                    await writer.drain()
                    return
                writer.write(chunk)
                await writer.drain()

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()
