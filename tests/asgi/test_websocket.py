"""A WebSocket has a session id and tokens as a request does, and gets an error in the form that its state allows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from tests.asgi_client import Exchange, Source, call, lifespan
from tokenmw import CredentialRejected, Token, TokenBroker, TokenMiddleware, TokenUnavailable, provider_token
from tokenmw.fastapi import SessionID, Tokens
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

DENIES: dict[str, Any] = {"websocket.http.response": {}}
ACCEPT = {"type": "websocket.accept"}


def closed(code: int) -> list[dict[str, Any]]:
    """Return the message that refuses or closes a WebSocket."""
    return [{"type": "websocket.close", "code": code, "reason": ""}]


async def failing() -> str:
    """Raise as a provider that has no token."""
    raise TokenUnavailable("busy", retry_after=7)


async def rejected() -> str:
    """Raise as a provider that rejects the credential."""
    raise CredentialRejected("wrong secret")


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, **options: Any) -> AsyncGenerator[TokenMiddleware]:
    """Serve an application behind the middleware."""
    broker = TokenBroker({"busy": StaticToken(failing), "wrong": StaticToken(rejected)}, clock=ManualClock())
    wrapped = TokenMiddleware(app, broker=broker, **options)
    async with lifespan(wrapped):
        yield wrapped


def plain(*, name: str, accept: bool = False, close: bool = False) -> ASGIApp:
    """Make a plain ASGI application that uses a token before or after `accept`, or after its own close."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        if accept:
            await send(ACCEPT)
        if close:
            await send({"type": "websocket.close", "code": 1000, "reason": "done"})
        await scope["state"]["tokens"].resolve(name)

    return app


def starlette(*, name: str, accept: bool = False, close: bool = False) -> ASGIApp:
    """Make the same application with Starlette."""

    async def endpoint(websocket: WebSocket) -> None:
        if accept:
            await websocket.accept()
        if close:
            await websocket.close(1000, "done")
        await websocket.state.tokens.resolve(name)

    return Starlette(routes=[WebSocketRoute("/", endpoint)])


def fastapi(*, name: str, accept: bool = False, close: bool = False) -> ASGIApp:
    """Make the same application with FastAPI, where a dependency uses the token before `accept`."""
    app = FastAPI()

    async def late(websocket: WebSocket, tokens: Tokens) -> None:
        if accept:
            await websocket.accept()
        if close:
            await websocket.close(1000, "done")
        await tokens.resolve(name)

    needed = Depends(provider_token(name))

    async def early(websocket: WebSocket, token: Token = needed) -> None:
        raise AssertionError("A route is not called if its dependency raises.")

    app.websocket("/")(late if accept or close else early)
    return app


async def served(app: ASGIApp, **more: Any) -> Exchange:
    """Serve one WebSocket whose application may raise, and return what was sent."""
    exchange: list[Exchange] = []
    with contextlib.suppress(TokenUnavailable, CredentialRejected):

        async def kept(scope: Any, receive: Any, send: Any) -> None:
            exchange.append(send.__self__)
            await app(scope, receive, send)

        await call(kept, kind="websocket", **more)
    return exchange[0]


@pytest.mark.parametrize("make", [plain, starlette, fastapi])
@pytest.mark.parametrize(("name", "status"), [("busy", 503), ("wrong", 502)])
async def test_before_accept_the_error_is_a_denial_response(make: Any, name: str, status: int) -> None:
    """A server with the extension gets the HTTP response, with its `Retry-After`, and nothing more."""
    async with serving(make(name=name)) as app:
        answer = await served(app, extensions=DENIES)
    assert ["websocket.http.response.start", "websocket.http.response.body"] == answer.kinds
    assert status == answer.status
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("make", [plain, starlette, fastapi])
async def test_without_the_extension_the_error_is_a_close_code(make: Any) -> None:
    """The code is 1013, "try again later"."""
    async with serving(make(name="busy")) as app:
        assert closed(1013) == (await served(app)).messages


@pytest.mark.parametrize("make", [plain, starlette, fastapi])
@pytest.mark.parametrize("extensions", [{}, DENIES])
async def test_after_accept_the_error_closes_with_1011(make: Any, extensions: Any) -> None:
    """The HTTP response that a framework sends then is replaced."""
    async with serving(make(name="busy", accept=True)) as app:
        answer = await served(app, extensions=extensions)
    assert ACCEPT["type"] == answer.kinds[0]
    assert closed(1011) == answer.messages[1:]


@pytest.mark.parametrize("make", [plain, starlette, fastapi])
async def test_after_the_applications_own_close_nothing_is_sent(make: Any) -> None:
    """The close code of the application remains the only one."""
    async with serving(make(name="busy", accept=True, close=True)) as app:
        answer = await served(app)
    assert ["websocket.accept", "websocket.close"] == answer.kinds
    assert 1000 == answer.messages[-1]["code"]


@pytest.mark.parametrize(("extensions", "kinds"), [({}, ["websocket.close"]), (DENIES, None)])
async def test_a_caller_without_a_key_is_refused(extensions: Any, kinds: list[str] | None) -> None:
    """The refusal is 1008, "policy violation", or a 401; the application is not called."""
    async with serving(plain(name="busy"), missing_key="reject") as app:
        answer = await served(app, extensions=extensions)
    if kinds:
        assert closed(1008) == answer.messages
    else:
        assert 401 == answer.status
        assert "application/problem+json" == answer.headers["content-type"]


async def test_an_error_after_the_start_of_a_denial_response_is_raised() -> None:
    """No second response is sent."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await scope["state"]["tokens"].resolve("busy")

    async with serving(app) as wrapped:
        assert ["websocket.http.response.start"] == (await served(wrapped, extensions=DENIES)).kinds
        with pytest.raises(TokenUnavailable):
            await call(wrapped, kind="websocket", extensions=DENIES)


async def test_a_disconnected_peer_does_not_hide_the_error() -> None:
    """If the close code cannot be sent, the original error is still raised."""

    async def disconnected(message: Any) -> None:
        if message["type"] == "websocket.close":
            raise OSError("disconnected")

    async with serving(plain(name="busy", accept=True)) as app:
        exchange = Exchange({"type": "websocket", "headers": []})
        with pytest.raises(TokenUnavailable):
            await app(exchange.scope, exchange.receive, disconnected)


async def test_a_long_websocket_has_no_expired_token() -> None:
    """Each lookup reads the local cache again."""
    source, clock = Source(life=3600), ManualClock()
    values: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(3):
            values.append(websocket.state.tokens["a"].value)
            await clock.elapse(3000)  # aging: the next lookup returns the old token, and starts a refresh
            values.append(websocket.state.tokens["a"].value)
            async with asyncio.timeout(10):
                while websocket.state.tokens["a"].value == values[-1]:  # noqa: ASYNC110  the refresh runs in the background
                    await asyncio.sleep(0.001)

    broker = TokenBroker({"a": StaticToken(source)}, clock=clock)
    middleware = [Middleware(TokenMiddleware, broker=broker, inject=["a"])]
    app = Starlette(routes=[WebSocketRoute("/", endpoint)], middleware=middleware)
    async with lifespan(app):
        await call(app, kind="websocket")
    assert ["t-1", "t-1", "t-2", "t-2", "t-3", "t-3"] == values


async def test_a_websocket_is_identified() -> None:
    """`SessionID` works in a WebSocket route, and what it documents in `/docs` refuses no caller."""
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, session: SessionID) -> None:
        await websocket.accept()
        await websocket.send_text(session)

    async with TokenBroker({}) as broker:
        wrapped = TokenMiddleware(app, broker=broker)
        answer = await call(wrapped, kind="websocket", headers=[(b"authorization", b"Bearer k")])
        assert await broker.session_id("k") == answer.messages[1]["text"]
        assert ACCEPT["type"] == (await call(wrapped, kind="websocket")).kinds[0]
