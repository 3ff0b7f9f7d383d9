"""A bare ASGI application, and a server made of a loop: what the middleware adds is all that is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import redis.asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "HEADERS",
    "KEY",
    "LookingUp",
    "SettingTwo",
    "SettingTwoAndWatching",
    "application",
    "gets",
    "requests",
    "scope_of",
]

KEY = b"sk-0123456789abcdef"
HEADERS = [
    (b"host", b"service.example"),
    (b"user-agent", b"benchmark"),
    (b"accept", b"*/*"),
    (b"authorization", b"Bearer " + KEY),
    (b"content-type", b"application/json"),
]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer; look at what the middleware has put there, if it has."""
    if scope["state"]:
        assert scope["state"]["session_id"]
        assert scope["state"]["tokens"]["crm"].value
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def requests(app: ASGIApp, count: int) -> float:
    """Return the microseconds of processor time that one request takes: nothing in it waits."""
    sent = 0

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_message: Message) -> None:
        nonlocal sent
        sent += 1

    began = time.thread_time()
    for _ in range(count):
        await app(scope_of(HEADERS), receive, send)
    took = time.thread_time() - began
    assert sent == 2 * count
    return took / count * 1e6


def scope_of(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Make the scope of a request with all that uvicorn puts into one."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": headers,
        "state": {},
    }


class _Known:
    value = "t"


_TOKENS = {"crm": _Known()}


class SettingTwo:
    """The least that a middleware with this one's outcome does: two keys of the state are set, and that is all."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["state"]["session_id"] = "s"
        scope["state"]["tokens"] = _TOKENS
        await self.app(scope, receive, send)


class SettingTwoAndWatching(SettingTwo):
    """The same, and it knows whether the response has begun, as whoever may have to answer an error must."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        def watched(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        scope["state"]["session_id"] = "s"
        scope["state"]["tokens"] = _TOKENS
        try:
            await self.app(scope, receive, watched)
        except ConnectionError:
            if started:
                raise


class LookingUp(SettingTwo):
    """The same, and it finds the key, looks it up in a dict, and looks at both clocks: nothing is checked or cared for.

    No middleware that answers the same questions in Python costs less.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.ids = {b"Bearer " + KEY: "s"}
        self.until = time.monotonic() + 86_400, time.time() + 86_400

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        def watched(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        for name, value in scope["headers"]:
            if name == b"authorization":
                scope["state"]["session_id"] = self.ids[value]
                break
        monotonic, wall = self.until
        if time.monotonic() < monotonic and time.time() < wall:
            scope["state"]["tokens"] = _TOKENS
        try:
            await self.app(scope, receive, watched)
        except ConnectionError:
            if started:
                raise


async def gets(client: redis.asyncio.Redis, count: int) -> float:
    """Return the microseconds that one GET takes."""
    await client.set("key", "value")
    began = time.perf_counter()
    for _ in range(count):
        assert await client.get("key")
    return (time.perf_counter() - began) / count * 1e6
