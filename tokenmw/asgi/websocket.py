"""The messages that a WebSocket can send in its present state."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tokenmw.asgi.problems import AFTER_ACCEPT, DENIAL, close_code
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

__all__ = ["WebSocketSend"]


class WebSocketSend(Unpicklable):
    """Sends the messages of a WebSocket, with HTTP responses turned into close codes where it can have none.

    Frameworks respond to an error with an HTTP response. A WebSocket can have one only before `accept`, and only if the
    server has the denial response extension.
    """

    __slots__ = ("_accepted", "_can_deny", "_closed", "_denied", "_send")

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send = send
        self._can_deny = DENIAL in scope.get("extensions", {})
        self._accepted = False
        self._closed = False
        self._denied = False

    @property
    def started(self) -> bool:
        """Whether the handshake has been completed or denied."""
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
                return  # the application closed the WebSocket and raised afterwards
            if self._accepted or not self._can_deny:
                self._closed = True
                code = AFTER_ACCEPT if self._accepted else close_code(message["status"])
                message = {"type": "websocket.close", "code": code, "reason": ""}
            else:
                self._denied = True
        elif kind == "websocket.http.response.body" and self._closed:
            return  # the start of this response was sent as a close code
        await self._send(message)

    async def abort(self) -> None:
        """Close an accepted WebSocket with 1011."""
        if self._accepted and not self._closed:
            self._closed = True
            with suppress(OSError):  # the peer has disconnected; the caller raises the error that matters
                await self._send({"type": "websocket.close", "code": AFTER_ACCEPT, "reason": ""})
