"""Errors are answered by whoever stands nearest: the user's handler, the framework, then the middleware."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.asgi_client import Exchange, answering, call, scope_of
from tokenmw import (
    APIKeyRefused,
    CredentialRejected,
    SessionUnavailable,
    Token,
    TokenBroker,
    TokenMiddleware,
    TokenmwError,
    TokenUnavailable,
    provider_token,
)
from tokenmw.asgi.problems import close_code
from tokenmw.errors import RequestError
from tokenmw.providers import StaticToken

ERRORS: dict[str, tuple[RequestError, int, dict[str, str]]] = {
    "unavailable": (TokenUnavailable("no token", retry_after=6.2), 503, {"retry-after": "7"}),
    "rejected": (CredentialRejected("wrong secret"), 502, {}),
    "session": (SessionUnavailable("no id", retry_after=0.1), 503, {"retry-after": "1"}),
    "refused": (APIKeyRefused("who are you"), 401, {"www-authenticate": "Bearer"}),
}
HEADERS = {"retry-after", "www-authenticate"}


async def failing() -> str:
    """Be the function of a provider that has no token."""
    raise TokenUnavailable("busy", retry_after=7)


def broker_of() -> TokenBroker:
    """Make a broker whose provider fails."""
    return TokenBroker({"a": StaticToken(failing)})


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_that_reaches_the_middleware_is_a_problem(name: str) -> None:
    """From a plain application, each error is RFC 9457 problem details with its status and headers."""
    error, status, headers = ERRORS[name]

    async def fail(_scope: Scope) -> Any:
        raise error

    async with broker_of() as broker:
        answer = await call(TokenMiddleware(answering(fail), broker=broker))
    assert "application/problem+json" == answer.headers["content-type"]
    assert {key: value for key, value in answer.headers.items() if key in HEADERS} == headers
    assert {"type", "title", "status", "detail"} == set(answer.json)
    assert (status, status, error.detail) == (answer.status, answer.json["status"], answer.json["detail"])
    assert answer.json["title"] in {"Service Unavailable", "Bad Gateway", "Unauthorized"}


async def use_token(request: Request) -> PlainTextResponse:
    """Use an injected token that is not there."""
    return PlainTextResponse(request.state.tokens["a"].value)


def starlette(**options: Any) -> Starlette:
    """Make a Starlette application whose route needs the token."""
    middleware = [Middleware(TokenMiddleware, broker=broker_of(), inject=["a"])]
    return Starlette(routes=[Route("/", use_token)], middleware=middleware, **options)


def fastapi(**options: Any) -> FastAPI:
    """Make a FastAPI application whose route needs the token, in a dependency."""
    app = FastAPI(lifespan=broker_of().lifespan, **options)

    @app.get("/")
    async def route(token: Annotated[Token, Depends(provider_token("a"))]) -> str:
        return token.value

    return app


@pytest.mark.parametrize("make", [starlette, fastapi])
def test_the_framework_answers_what_its_routes_raise(make: Any) -> None:
    """With the error's status and headers, as for any `HTTPException`."""
    with TestClient(make()) as client:
        answer = client.get("/")
    assert 503 == answer.status_code
    assert 5 <= int(answer.headers["retry-after"]) <= 7
    assert "a: no valid token: busy" in answer.text


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("caught", [TokenmwError, HTTPException, RequestError, TokenUnavailable, 503])
def test_a_handler_of_the_users_catches_them(make: Any, caught: Any) -> None:
    """Registered for our base class, for starlette's, or for the status."""

    async def handler(_request: Request, error: Any) -> JSONResponse:
        return JSONResponse({"mine": error.provider}, status_code=418)

    with TestClient(make(exception_handlers={caught: handler})) as client:
        answer = client.get("/")
    assert (418, {"mine": "a"}) == (answer.status_code, answer.json())


async def test_the_programs_own_answer() -> None:
    """`on_error`, sync or async, makes the answer of what reaches the middleware."""

    def answer_of(connection: Any, error: RequestError) -> Response:
        return PlainTextResponse(f"{connection.url.path} {type(error).__name__}", status_code=error.status_code)

    async def later(connection: Any, error: RequestError) -> Response:
        return answer_of(connection, error)

    async with TokenBroker({}, missing_key="reject") as broker:
        for on_error in (answer_of, later):
            app = TokenMiddleware(starlette(), broker=broker, on_error=on_error)
            answer = await call(app, path="/here")
            assert (401, b"/here APIKeyRefused") == (answer.status, answer.body)


async def test_after_the_response_has_started_the_error_is_raised_on() -> None:
    """There is nothing left to answer with; the server cuts the connection."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await scope["state"]["tokens"].resolve("a")

    async with broker_of() as broker:
        exchange = Exchange(scope_of("http"))
        with pytest.raises(TokenUnavailable):
            await TokenMiddleware(app, broker=broker)(exchange.scope, exchange.receive, exchange.send)
    assert ["http.response.start", "http.response.body"] == exchange.kinds


@pytest.mark.parametrize("error", [LookupError("x"), HTTPException(418)])
async def test_what_is_not_ours_passes(error: Exception) -> None:
    """The middleware answers its own errors, and no others."""

    async def fail(_scope: Scope) -> Any:
        raise error

    async with broker_of() as broker:
        with pytest.raises(type(error)):
            await call(TokenMiddleware(answering(fail), broker=broker))


async def test_a_refused_key_does_not_reach_the_application() -> None:
    """The answer is the middleware's: the application is never called."""
    called: list[ASGIApp] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(app)

    async with TokenBroker({}, missing_key="reject") as broker:
        assert 401 == (await call(TokenMiddleware(app, broker=broker))).status
    assert [] == called


@pytest.mark.parametrize(
    ("status", "code"), [(401, 1008), (403, 1008), (404, 1008), (500, 1011), (502, 1013), (503, 1013)]
)
def test_a_status_has_its_close_code(status: int, code: int) -> None:
    """Refused, broken or busy (RFC 6455 §7.4 and the IANA registry)."""
    assert code == close_code(status)


@pytest.mark.parametrize("name", ERRORS)
def test_an_errors_own_close_code_agrees(name: str) -> None:
    """The attribute says what is sent."""
    error, status, _ = ERRORS[name]
    assert error.close_code == close_code(status)
