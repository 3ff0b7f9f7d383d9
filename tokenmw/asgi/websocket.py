"""What a WebSocket may be sent in its present state."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tokenmw.asgi.problems import AFTER_ACCEPT, close_code

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

__all__ = ["WebSocketSend"]


class WebSocketSend:
    """Sends on what a WebSocket in its present state can be sent.

    Frameworks answer an error with an HTTP response. After `accept` there is none to be had, and before it only if
    the server has the extension; otherwise the response becomes a close code.
    """

    __slots__ = ("_accepted", "_closed", "_denied", "_denies", "_send")

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send = send
        self._denies = "websocket.http.response" in scope.get("extensions", {})
        self._accepted = False
        self._closed = False
        self._denied = False

    @property
    def started(self) -> bool:
        """Whether the handshake is answered."""
        return self._accepted or self._closed or self._denied

    async def __call__(self, message: Message) -> None:
        """Send one message."""
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.close":
            self._closed = True
        elif kind == "websocket.http.response.start":
            if self._closed:
                return  # the application closed it, and failed then: there is nothing left to answer
            if self._accepted or not self._denies:
                self._closed = True
                code = AFTER_ACCEPT if self._accepted else close_code(message["status"])
                message = {"type": "websocket.close", "code": code, "reason": ""}
            else:
                self._denied = True
        elif kind == "websocket.http.response.body" and self._closed:
            return  # of the response that has become a close code
        await self._send(message)

    async def abort(self) -> None:
        """Close an accepted WebSocket with 1011."""
        if self._accepted and not self._closed:
            self._closed = True
            with suppress(OSError):  # the peer has gone; the error that is raised on says more
                await self._send({"type": "websocket.close", "code": AFTER_ACCEPT, "reason": ""})
