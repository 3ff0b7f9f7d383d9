"""Clients of the program over real sockets, with API keys in all places. They keep every byte that they receive."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import websockets

from tests.canary.credentials import API_KEYS

__all__ = ["Clients"]


class Clients:
    """Sends requests to the program, each on a new connection.

    Args:
        port: The port of the program.

    Attributes:
        responses: The bytes of every response.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.responses: list[bytes] = []

    async def get(self, path: str, *, key: str = "x-api-key") -> bytes:
        """Send a GET request with the API key of this name, and return the response."""
        value = API_KEYS[key]
        match key:
            case "query":
                path, line = f"{path}?key={quote(value, safe='')}", "x-key: none"
            case "cookie":
                line = f"cookie: key={value}"
            case "bearer":
                line = f"authorization: Bearer {value}"
            case _:
                line = f"x-api-key: {value}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: program.example\r\n{line}\r\nconnection: close\r\n\r\n".encode())
        response = await asyncio.wait_for(reader.read(), 120)
        writer.close()
        self.responses.append(response)
        return response

    async def open_websocket(self, path: str) -> None:
        """Open a WebSocket, and keep the denial response or the close frame."""
        headers = {"x-api-key": API_KEYS["websocket"]}
        url = f"ws://127.0.0.1:{self._port}{path}"
        try:
            async with websockets.connect(url, additional_headers=headers, proxy=None) as websocket:
                await websocket.recv()
        except websockets.InvalidStatus as denied:
            self.responses += [str(denied.response).encode(), repr(denied.response.headers).encode()]
            self.responses.append(bytes(denied.response.body or b""))
        except websockets.ConnectionClosed as closed:
            self.responses.append(str(closed).encode())
