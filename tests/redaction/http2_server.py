"""A server that speaks HTTP/2 without TLS and grants a token to each request."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["http2_server"]


@asynccontextmanager
async def http2_server(body: bytes) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Serve this JSON document. Yield the port, and the headers of all requests, which arrive meanwhile."""
    received: list[bytes] = []
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        try:
            while data := await reader.read(65_536):
                for event in connection.receive_data(data):
                    if isinstance(event, RequestReceived):
                        received.extend(value for _, value in event.headers)
                    if isinstance(event, StreamEnded):
                        headers = [(":status", "200"), ("content-type", "application/json"), ("x-echo", "answered")]
                        connection.send_headers(event.stream_id, headers)
                        connection.send_data(event.stream_id, body, end_stream=True)
                writer.write(connection.data_to_send())
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], received
    finally:
        server.close()
        for task in [*connections]:
            task.cancel()
        if connections:
            await asyncio.wait(connections)
