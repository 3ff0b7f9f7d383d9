"""The application's lifespan, run inside the broker's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.broker import STATE_KEY
from tokenmw.errors import TokenmwError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tokenmw.broker import TokenBroker

__all__ = ["run_lifespan"]


async def run_lifespan(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, broker: TokenBroker, warm: Sequence[str]
) -> None:
    """Run an application's lifespan inside the broker's: open before the application starts, closed after it ends.

    An application that knows no lifespan is served, too: then the events are answered here. If the broker cannot be
    opened, the server is told `lifespan.startup.failed`.
    """
    inside = _Inside(receive, send, broker=broker, warm=warm)
    if isinstance(scope.get("state"), dict):
        scope["state"][STATE_KEY] = broker
    try:
        try:
            await app(scope, inside.receive, inside.send)
        except Exception:
            # One that fails before it asks for an event means that it knows none (ASGI, "Lifespan Protocol").
            if inside.answered or (inside.asked and not inside.foreign):
                raise
        if not inside.answered:
            await inside.run_alone()
    finally:
        await inside.leave()


class _Inside:
    """A lifespan's two channels, with the broker's opening and closing put in between."""

    def __init__(self, receive: Receive, send: Send, *, broker: TokenBroker, warm: Sequence[str]) -> None:
        self._receive = receive
        self._send = send
        self._broker = broker
        self._warm = warm
        self._entered = False
        self.asked = False
        self.answered = False
        self.foreign = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.asked = True
        if message["type"] == "lifespan.startup":
            await self._open()
        return message

    async def _open(self) -> None:
        try:
            await self._broker.__aenter__()
            self._entered = True
            await self._broker._warm_up(self._warm)
        except Exception as error:
            # Raised alone, it would look to the server as if the application knew no lifespan, and it would go on.
            self.answered = True
            reason = str(error) if isinstance(error, TokenmwError) else type(error).__name__
            await self._send({"type": "lifespan.startup.failed", "message": f"The token broker cannot open: {reason}"})
            raise

    async def send(self, message: Message) -> None:
        if not message["type"].startswith("lifespan."):
            # A small application answers every scope with a page.
            self.foreign = True
            raise RuntimeError("This scope is a lifespan, and cannot be answered with an HTTP response.")
        self.answered = True
        if message["type"] != "lifespan.startup.complete":
            await self.leave()
        await self._send(message)

    async def leave(self) -> None:
        if self._entered:
            self._entered = False
            await self._broker.__aexit__(None, None, None)

    async def run_alone(self) -> None:
        if not self.asked:
            await self.receive()
        await self.send({"type": "lifespan.startup.complete"})
        await self.receive()
        await self.send({"type": "lifespan.shutdown.complete"})
