"""The public API as programs use it. Never executed: mypy and pyright check it.

A line that must be an error has a `type: ignore` with the error's name; the checkers report one that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

import httpx
import httpx2
import redis.asyncio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tokenmw import (
    APIKeySource,
    Grant,
    Limits,
    Observer,
    Provider,
    RequestState,
    RequestTokens,
    Status,
    Token,
    TokenAuth,
    TokenBroker,
    TokenMiddleware,
    TokenmwError,
    TokenUnavailable,
    provider_token,
    request_tokens,
    session_id,
)
from tokenmw.observe.events import Event
from tokenmw.providers import ClientCredentials, StaticToken, TokenHTTP


class Mine(Provider):
    """A custom provider."""

    __slots__ = ("_secret",)
    kind = "mine"
    _secret: str

    def __init__(self, *, secret: str) -> None:
        self._secret = secret

    def identity(self) -> tuple[object, ...]:
        """Return the secret."""
        return (self._secret,)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token."""
        answer = await http.request("POST", "https://idp.example/token", json={"secret": self._secret})
        return Grant(answer.body.decode(), expires_in=60, extra={"status": answer.status})


def of_tenant(connection: HTTPConnection) -> Provider:
    """Choose credentials by a header."""
    return Mine(secret=connection.headers["x-tenant"])


async def async_of_tenant(connection: HTTPConnection) -> Mine:
    """Choose credentials by a header, asynchronously."""
    return Mine(secret=connection.headers["x-tenant"])


async def authenticate(connection: HTTPConnection, key: str) -> dict[str, str] | None:
    """Identify the caller."""
    return {"key": key, "path": connection.url.path}


def observe(event: Event, /) -> None:
    """Observe an event."""
    print(event)  # noqa: T201


def on_error(_connection: HTTPConnection, error: TokenmwError) -> Response:
    """Respond in the program's own format."""
    return JSONResponse({"error": str(error)}, status_code=503)


async def async_on_error(connection: HTTPConnection, error: TokenmwError) -> JSONResponse:
    """Respond in the program's own format, asynchronously."""
    return JSONResponse({"error": str(error), "at": connection.url.path}, status_code=503)


async def names_of(connection: HTTPConnection) -> list[str]:
    """Choose the names to inject."""
    return [connection.path_params["name"]]


crm = ClientCredentials(token_url="https://idp.example/token", client_id="crm", client_secret="…", scope="read")
watcher: Observer = observe
broker = TokenBroker(
    {"crm": crm, "mine": Mine(secret="…"), "wecom": of_tenant, "later": async_of_tenant, "x": lambda _: crm},
    redis="redis://localhost:6379/0",
    secret_key=["new", "old"],
    api_key=APIKeySource(["x-api-key"], query=["key"]),
    missing_key="reject",
    session_policy="required",
    session_ids="random",
    authenticate=authenticate,
    limits=Limits(tokens=5),
    observers=[watcher],
)
TokenBroker({"crm": crm}, redis=redis.asyncio.Redis(), http=httpx2.AsyncClient())
TokenBroker({"crm": "token"})  # type: ignore[dict-item]
TokenBroker({}, missing_key="deny")  # type: ignore[arg-type]
TokenBroker({}, secret="…")  # type: ignore[call-arg]

Starlette(
    middleware=[Middleware(TokenMiddleware, broker=broker, inject=["crm"], on_error=on_error)],
    lifespan=broker.lifespan,
)
Middleware(TokenMiddleware, broker=broker, inject=names_of, sessions=False, on_error=async_on_error)
Middleware(TokenMiddleware, broker=broker, inject=lambda _: ("crm",), missing_key="random")
Middleware(TokenMiddleware, brocker=broker)  # type: ignore[call-arg]
Middleware(TokenMiddleware, broker=broker, inject=5)  # type: ignore[arg-type]
Middleware(TokenMiddleware)  # type: ignore[call-arg]
Starlette().add_middleware(TokenMiddleware, broker=broker)


class State(RequestState):
    """The program's own state."""

    database: str


async def typed_handler(request: Request[State]) -> None:
    """Read the state by its keys."""
    assert_type(request.state["session_id"], str)
    assert_type(request.state["tokens"], RequestTokens)
    assert_type(request.state["tokens"]["crm"], Token)
    assert_type(request.state["database"], str)
    request.state["session"]  # type: ignore[typeddict-item]


async def typed_websocket(websocket: WebSocket[RequestState]) -> None:
    """Do so in a WebSocket."""
    assert_type(websocket.state["session_id"], str)


Starlette(routes=[Route("/", typed_handler), WebSocketRoute("/ws", typed_websocket)])


async def program() -> None:
    """Use the broker outside of a request."""
    async with broker as same:
        assert_type(same, TokenBroker)
    assert_type(await broker.token("crm"), Token)
    assert_type(await broker.token(crm), Token)
    assert_type(await broker.session_id("key"), str)
    assert_type(await broker.reset_session(b"key"), str)
    assert_type(await broker.invalidate(await broker.token("crm")), bool)
    assert_type(broker.status(), Status)
    assert_type(broker.auth("crm"), TokenAuth)
    async with httpx.AsyncClient(auth=broker.auth("crm")) as http:
        await http.get("https://api.example", auth=broker.auth(crm))
    with broker.override({"crm": StaticToken("test"), "wecom": of_tenant}):
        await broker.invalidate_provider("crm")


async def handler(request: Request) -> None:
    """Use the tokens of a request."""
    tokens = await request_tokens(request)
    assert_type(tokens, RequestTokens)
    token = tokens["crm"]
    assert_type(token, Token)
    assert_type([token.value, token.authorization, token.token_type, token.provider], list[str])
    assert_type(token.expires_at, float)
    assert_type(token.extra, Mapping[str, Any])
    assert_type(await tokens.resolve("crm"), Token)
    assert_type(tokens.auth("crm"), TokenAuth)
    assert_type("crm" in tokens, bool)
    assert_type(list(tokens), list[str])
    assert_type(await session_id(request), str)
    assert_type(await provider_token("crm")(request), Token)
    try:
        await tokens.resolve("crm")
    except TokenUnavailable as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.status_code, int)
    token.value = "other"
