"""Calls ASGI applications directly, without a server, and shows every message that they send."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenmw import Grant, TokenBroker, TokenMiddleware

Headers = Iterable[tuple[bytes, bytes]]
Handler = Callable[[Scope], Awaitable[Any]]


def scope_of(kind: str, *, headers: Headers = (), path: str = "/", **more: Any) -> dict[str, Any]:
    """Make the scope of a connection as a server would."""
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers),
        "subprotocols": [],
        **more,
    }


@dataclass
class Exchange:
    """One connection: its scope, and the messages that the application sent."""

    scope: dict[str, Any]
    messages: list[Message] = field(default_factory=list[Message])

    @property
    def status(self) -> int:
        """The HTTP status."""
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers."""
        return {name.decode().lower(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        """The body, decoded from JSON."""
        return json.loads(self.body)

    @property
    def kinds(self) -> list[str]:
        """The messages' types."""
        return [message["type"] for message in self.messages]

    async def send(self, message: Message) -> None:
        """Record a message."""
        self.messages.append(message)

    async def receive(self) -> Message:
        """Return an empty body, or the handshake of a WebSocket."""
        if self.scope["type"] == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": b"", "more_body": False}


async def call(app: ASGIApp, *, kind: str = "http", headers: Headers = (), path: str = "/", **more: Any) -> Exchange:
    """Call an application for one connection, and return what it sent."""
    exchange = Exchange(scope_of(kind, headers=headers, path=path, **more))
    await app(exchange.scope, exchange.receive, exchange.send)
    return exchange


def answering(handler: Handler) -> ASGIApp:
    """Make a plain ASGI application that responds with the result of a handler as JSON."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        body = json.dumps(await handler(scope)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


async def session_of(scope: Scope) -> Any:
    """Return the session id of a connection."""
    return scope["state"].get("session_id")


class Lifespan:
    """The lifespan of one application, with events sent one by one."""

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        self.task = asyncio.ensure_future(_run(app, scope, self._events.get, self.sent.put))

    async def tell(self, event: str) -> Message:
        """Send `startup` or `shutdown`, and return the reply."""
        await self._events.put({"type": f"lifespan.{event}"})
        return await asyncio.wait_for(self.sent.get(), 10)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


@contextlib.asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncGenerator[dict[str, Any]]:
    """Start an application, yield the state for its connections, and shut it down."""
    running = Lifespan(app)
    assert {"type": "lifespan.startup.complete"} == await running.tell("startup")
    yield running.state
    assert {"type": "lifespan.shutdown.complete"} == await running.tell("shutdown")
    await running.task


class Source:
    """The function of a `StaticToken`: it counts its calls, and can hang or fail.

    Attributes:
        calls: How often it was called.
        gate: While it is not set, calls hang.
        error: The exception that calls raise.
    """

    def __init__(self, *, life: float = 3600.0) -> None:
        self.calls = 0
        self.life = life
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self) -> Grant:
        """Return `t-1`, `t-2` and so on."""
        self.calls += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Grant(f"t-{self.calls}", expires_in=self.life)


def is_open(broker: TokenBroker) -> bool:
    """Return whether the broker has a runtime."""
    return broker._runtime is not None


async def show(request: Request) -> PlainTextResponse:
    """Respond with the session id and the token."""
    return PlainTextResponse(f"{request.state.session_id} {request.state.tokens['a'].value}")


def application(broker: TokenBroker, **options: Any) -> Starlette:
    """Make an application whose only route responds with the session id and the token."""
    middleware = [Middleware(TokenMiddleware, broker=broker, inject=["a"])]
    return Starlette(routes=[Route("/", show)], middleware=middleware, **options)
