"""A TCP proxy that makes the faults of a network: delays, lost data, reset and refused connections.

It forwards everything until a test changes it:

    async with Proxy(redis_server.port) as proxy:
        proxy.latency = 0.05          # seconds for each chunk, in each direction
        proxy.connect_delay = 0.5     # seconds before a new connection forwards: a slow handshake
        proxy.black_hole = True       # accepts connections, forwards nothing
        proxy.cut()                   # resets all connections
        proxy.cut_replies = True      # forwards half of a reply, then resets its connection
        proxy.reply_delay = [0.1, 0.14]  # seconds for each chunk of replies, random between these
        proxy.bytewise = True         # forwards replies byte by byte
        proxy.reset_share = 0.05      # resets the connection in place of a chunk, with this probability
        proxy.double_share = 1.0      # forwards a chunk of replies twice, with this probability
        proxy.corrupt_share = 0.1     # changes a byte of a chunk of replies, with this probability
        proxy.half_close = True       # closes the writing half of a connection in place of its next reply
        proxy.half_close_all()        # does so to all open connections immediately; what they send is dropped
        proxy.answer = b"-LOADING …"   # the reply to each chunk; the server receives nothing
        await proxy.refuse()          # refuses new connections
        await proxy.listen()          # accepts them again, on the same port
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESET = struct.pack("ii", 1, 0)  # with this SO_LINGER, closing a socket sends a RST


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
        reply_delay: The shortest and the longest delay of a chunk of the server's, in seconds; or nothing.
        bytewise: Whether the server's chunks are forwarded byte by byte.
        reset_share: The probability with which a chunk of either side causes a reset in its place.
        double_share: The probability with which a chunk of the server's is forwarded twice, the second time up to
            10 ms later.
        corrupt_share: The probability with which one byte of a chunk of the server's is changed.
        half_close: Whether the server's next chunk ends its direction of a connection; the other one stays open.
        answer: What a client receives for each chunk instead of the server's reply, or None.
    """

    def __init__(self, target: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._target = target
        self._host = host
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._half_closed: set[asyncio.StreamWriter] = set()
        self.port = port
        self.accepted = 0
        self.connect_delay = 0.0
        self.latency = 0.0
        self.black_hole = False
        self.lose_replies = False
        self.cut_replies = False
        self.reply_delay: Sequence[float] = ()
        self.bytewise = False
        self.reset_share = 0.0
        self.double_share = 0.0
        self.corrupt_share = 0.0
        self.half_close = False
        self.answer: bytes | None = None

    @property
    def url(self) -> str:
        """The URL of a Redis server behind the proxy."""
        return f"redis://{self._host}:{self.port}/0"

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
        self._server = await asyncio.start_server(self._accept, self._host, self.port)
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

    def half_close_all(self) -> None:
        """Close the writing half of all open connections, and drop what their clients send from now on."""
        for writer in self._clients - self._half_closed:
            self._half_closed.add(writer)
            with contextlib.suppress(OSError):
                writer.write_eof()

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
        self._clients.add(writer)
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
                if self.black_hole or (client is None and self.lose_replies) or client in self._half_closed:
                    continue
                if random.random() < self.reset_share:
                    for end in (client, writer):
                        _reset_when_closed(end)
                    return
                if client is None:
                    if not await self._reply(writer, chunk):
                        return
                elif self.answer is not None:
                    client.write(self.answer)
                else:
                    writer.write(chunk)
                    await writer.drain()

    async def _reply(self, writer: asyncio.StreamWriter, chunk: bytes) -> bool:
        """Send a chunk of the server's to the client. Return whether the connection stays open."""
        if self.reply_delay:
            await asyncio.sleep(random.uniform(*self.reply_delay))
        if self.half_close and writer not in self._half_closed:
            self._half_closed.add(writer)
            writer.write_eof()
        if writer in self._half_closed:
            return True
        if self.cut_replies:
            writer.write(chunk[: len(chunk) // 2])
            await writer.drain()
            return False
        if random.random() < self.corrupt_share:
            place = random.randrange(len(chunk))
            chunk = chunk[:place] + bytes([chunk[place] ^ random.randrange(1, 256)]) + chunk[place + 1 :]
        await self._send(writer, chunk)
        if random.random() < self.double_share:
            # Sometimes later: then the client has sent the next command already.
            await asyncio.sleep(random.choice((0.0, random.uniform(0.0, 0.01))))
            await self._send(writer, chunk)
        return True

    async def _send(self, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        for part in map(bytes, zip(chunk)) if self.bytewise else (chunk,):
            writer.write(part)
            await writer.drain()
            if self.bytewise:
                await asyncio.sleep(0)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        for writers in (self._writers, self._clients, self._half_closed):
            writers.discard(writer)
        writer.transport.abort()


def _reset_when_closed(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
