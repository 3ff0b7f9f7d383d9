"""A bare ASGI application, and a loop in place of a server, so that only the cost of a middleware is measured."""

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
    """Read what the middleware put into the state, if there is one, and answer."""
    if scope["state"]:
        assert scope["state"]["session_id"]
        assert scope["state"]["tokens"]["crm"].value
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def requests(app: ASGIApp, count: int) -> float:
    """Return the microseconds of processor time per request; no request waits."""
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
    """Return the scope of a request with all keys that uvicorn sets."""
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
    """The minimum of a middleware with the same result: it sets two keys of the state."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["state"]["session_id"] = "s"
        scope["state"]["tokens"] = _TOKENS
        await self.app(scope, receive, send)


class SettingTwoAndWatching(SettingTwo):
    """The same, and it watches whether the response has started, as a middleware that answers errors must."""

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
    """The same, and it finds the key, looks it up in a dict, and reads both clocks, without any check.

    No middleware that does the same in Python costs less.
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
    """Return the microseconds per GET."""
    await client.set("key", "value")
    began = time.perf_counter()
    for _ in range(count):
        assert await client.get("key")
    return (time.perf_counter() - began) / count * 1e6
