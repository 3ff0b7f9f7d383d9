"""An error becomes a response in the program's handler, else in the framework, else in the middleware."""

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
    ConfigurationError,
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
    "refused": (APIKeyRefused("no key"), 401, {"www-authenticate": "Bearer"}),
}
HEADERS = {"retry-after", "www-authenticate"}


async def failing() -> str:
    """Raise as a provider that has no token."""
    raise TokenUnavailable("busy", retry_after=7)


def broker_of() -> TokenBroker:
    """Make a broker whose provider fails."""
    return TokenBroker({"a": StaticToken(failing)})


async def test_on_error_must_return_a_response() -> None:
    """What is not a response is named with the option, and is not called."""

    async def fail(_scope: Scope) -> Any:
        raise TokenUnavailable("no token")

    def wrong(_connection: object, _error: object) -> Any:
        return {"detail": "no token"}

    async with broker_of() as broker:
        app = TokenMiddleware(answering(fail), broker=broker, on_error=wrong)
        with pytest.raises(ConfigurationError, match=r"on_error=…\) must return a Response, not dict"):
            await app(scope_of("http"), _receive, _send)


async def _receive() -> Any:
    raise AssertionError("nothing is received")


async def _send(_message: Any) -> None:
    raise AssertionError("nothing is sent")


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_that_reaches_the_middleware_is_a_problem(name: str) -> None:
    """From a plain ASGI application, each error is RFC 9457 problem details with its status and headers."""
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
    """Use an injected token."""
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
def test_the_framework_responds_to_what_its_routes_raise(make: Any) -> None:
    """The response has the error's status and headers, as for any `HTTPException`."""
    with TestClient(make()) as client:
        answer = client.get("/")
    assert 503 == answer.status_code
    assert 5 <= int(answer.headers["retry-after"]) <= 8
    assert str(TokenUnavailable.fixed_detail) in answer.text


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("caught", [TokenmwError, HTTPException, RequestError, TokenUnavailable, 503])
def test_an_exception_handler_of_the_program_gets_the_error(make: Any, caught: Any) -> None:
    """It may be registered for our base class, for starlette's, for the class itself, or for the status."""

    async def handler(_request: Request, error: Any) -> JSONResponse:
        return JSONResponse({"mine": error.provider}, status_code=418)

    with TestClient(make(exception_handlers={caught: handler})) as client:
        answer = client.get("/")
    assert (418, {"mine": "a"}) == (answer.status_code, answer.json())


async def test_on_error_makes_the_response() -> None:
    """It may be sync or async."""

    def sync_response(connection: Any, error: RequestError) -> Response:
        return PlainTextResponse(f"{connection.url.path} {type(error).__name__}", status_code=error.status_code)

    async def async_response(connection: Any, error: RequestError) -> Response:
        return sync_response(connection, error)

    async with TokenBroker({}, missing_key="reject") as broker:
        for on_error in (sync_response, async_response):
            app = TokenMiddleware(starlette(), broker=broker, on_error=on_error)
            answer = await call(app, path="/here")
            assert (401, b"/here APIKeyRefused") == (answer.status, answer.body)


async def test_after_the_response_has_started_the_error_is_raised() -> None:
    """Then no other response can be sent, and the server closes the connection."""

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
async def test_other_exceptions_are_raised_on(error: Exception) -> None:
    """The middleware makes responses of its own errors only."""

    async def fail(_scope: Scope) -> Any:
        raise error

    async with broker_of() as broker:
        with pytest.raises(type(error)):
            await call(TokenMiddleware(answering(fail), broker=broker))


async def test_a_refused_key_does_not_reach_the_application() -> None:
    """The middleware sends the response; the application is not called."""
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
    """1008 for a refusal, 1011 for an internal error, 1013 for "try again later" (RFC 6455 §7.4, IANA registry)."""
    assert code == close_code(status)


@pytest.mark.parametrize("name", ERRORS)
def test_the_close_code_of_an_error_is_that_of_its_status(name: str) -> None:
    """The attribute `close_code` is what the middleware sends."""
    error, status, _ = ERRORS[name]
    assert error.close_code == close_code(status)
