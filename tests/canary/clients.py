"""Callers of the program over real sockets, with their keys in every place, who keep each byte of the answers."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import websockets

from tests.canary.credentials import API_KEYS

__all__ = ["Authenticator"]


class Authenticator:
    """Ask the program, each time on a new connection.

    Args:
        port: Where the program listens.

    Attributes:
        heard: What was answered.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.heard: list[bytes] = []

    async def get(self, path: str, *, key: str = "x-api-key") -> bytes:
        """Ask with an API key of some kind, where that kind stands."""
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
        answer = await asyncio.wait_for(reader.read(), 120)
        writer.close()
        self.heard.append(answer)
        return answer

    async def talk(self, path: str) -> None:
        """Open a WebSocket, and keep how it ended."""
        headers = {"x-api-key": API_KEYS["websocket"]}
        url = f"ws://127.0.0.1:{self._port}{path}"
        try:
            async with websockets.connect(url, additional_headers=headers, proxy=None) as socket_:
                await socket_.recv()
        except websockets.InvalidStatus as denied:
            self.heard += [str(denied.response).encode(), repr(denied.response.headers).encode()]
            self.heard.append(bytes(denied.response.body or b""))
        except websockets.ConnectionClosed as closed:
            self.heard.append(str(closed).encode())
