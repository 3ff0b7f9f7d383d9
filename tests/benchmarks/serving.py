"""The servers under load: uvicorn with the same small application, bare or behind a middleware."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any

import uvicorn
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware

from tests.benchmarks.asgi import SettingTwoAndWatching
from tests.processes import receive, send
from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.observe.throttle import LOGGER
from tokenmw.providers import StaticToken

__all__ = ["BARE", "LEAST", "OURS", "STARLETTE", "application", "listening", "serve"]

BARE = "no middleware"
OURS = "tokenmw"
LEAST = "one that sets two keys"
STARLETTE = "starlette's AuthenticationMiddleware"


async def answer(scope: Any, _receive: Any, send: Any) -> None:
    """Answer with a short JSON body."""
    body = b"{}"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def using(scope: Any, receive: Any, send: Any) -> None:
    """Read what the middleware put into the state, and answer."""
    assert scope["state"]["session_id"]
    assert scope["state"]["tokens"]["crm"].value
    await answer(scope, receive, send)


class KeyBackend:
    """Authenticates by an API key, starlette's way: less work than a session id and a token."""

    async def authenticate(self, connection: Any) -> tuple[AuthCredentials, SimpleUser]:
        """Return the caller."""
        return AuthCredentials(["authenticated"]), SimpleUser(connection.headers["authorization"].partition(" ")[2])


async def application(kind: str, *, redis: str | None = None) -> Any:
    """Return the small application, bare or behind a middleware; ours has an open broker."""
    if kind == OURS:
        broker = TokenBroker({"crm": StaticToken("t")}, redis=redis, secret_key="a secret for this run")
        await broker.__aenter__()
        return TokenMiddleware(using, broker=broker, inject=["crm"])
    if kind == LEAST:
        return SettingTwoAndWatching(using)
    if kind == STARLETTE:
        return AuthenticationMiddleware(answer, backend=KeyBackend())  # type: ignore[arg-type]
    return answer


def listening(port: int) -> socket.socket:
    """Return a listening socket on loopback. Port 0 takes a free port; several processes may share a port."""
    # With IPPROTO_TCP: asyncio disables Nagle's algorithm only for sockets that name their protocol.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


async def serve(*, kind: str, redis: str | None = None, port: int = 0) -> None:
    """Serve until killed. Port 0 takes a free port; it is reported to the parent process."""
    LOGGER.setLevel(logging.CRITICAL)  # the outage is intended
    app = await application(kind, redis=redis)
    listener = listening(port)
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    serving = asyncio.ensure_future(uvicorn.Server(config).serve(sockets=[listener]))
    send(listener.getsockname()[1])
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, receive) == "processor":
        send(time.process_time())
    serving.cancel()
