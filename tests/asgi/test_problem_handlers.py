"""One call makes the routes of an application answer with problem details, as the middleware does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from tests.asgi_client import Exchange, answering, call, lifespan
from tokenmw import (
    APIKeyRefused,
    ConfigurationError,
    CredentialRejected,
    SessionUnavailable,
    TokenBroker,
    TokenMiddleware,
    TokenmwError,
    TokenUnavailable,
)
from tokenmw.asgi.problems import close_code
from tokenmw.errors import RequestError
from tokenmw.problems import add_problem_handlers, problem_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

ERRORS: list[RequestError] = [
    TokenUnavailable("busy", retry_after=6.2),
    CredentialRejected("wrong secret"),
    SessionUnavailable("no id", retry_after=0.1),
    APIKeyRefused("no key"),
]
DENIES: dict[str, Any] = {"websocket.http.response": {}}
PATHS = ["/async", "/sync", "/dependency", "/router", "/mounted/async", "/wrapped/async", "/inner/mounted/async"]


async def by_middleware(error: RequestError) -> Exchange:
    """Return the response of the middleware to an error that reaches it."""

    async def fail(_scope: Scope) -> None:
        raise error

    return await call(TokenMiddleware(answering(fail), broker=TokenBroker({})))


class Wrapper:
    """A middleware around a mounted application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self.app(scope, receive, send)


def raising(error: Exception) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Make a sync and an async route that raise."""

    def sync_route(_request: Request) -> Response:
        raise error

    async def async_route(_request: Request) -> Response:
        raise error

    return sync_route, async_route


def starlette(error: Exception, *, mounts: bool = True, **options: Any) -> Starlette:
    """Make a Starlette application whose routes raise, with mounted applications whose routes raise as well."""
    sync_route, async_route = raising(error)
    routes: list[Any] = [
        Route("/sync", sync_route),
        Route("/async", async_route),
        Route("/dependency", async_route),
        Mount("/router", routes=[Route("/", async_route)]),
        Route("/router", sync_route),
    ]
    if mounts:
        routes += [
            Mount("/mounted", starlette(error, mounts=False)),
            Mount("/wrapped", fastapi(error, mounts=False), middleware=[Middleware(Wrapper)]),
            Mount("/inner", routes=[Mount("/mounted", Wrapper(starlette(error, mounts=False)))]),
        ]
    return Starlette(routes=routes, **options)


def fastapi(error: Exception, *, mounts: bool = True, **options: Any) -> FastAPI:
    """Make the same application with FastAPI."""

    def sync_route() -> None:
        raise error

    async def async_route() -> None:
        raise error

    app, router = FastAPI(**options), APIRouter()
    app.get("/sync")(sync_route)
    app.get("/async")(async_route)
    app.get("/dependency", dependencies=[Depends(sync_route)])(async_route)
    router.get("/router")(async_route)
    app.include_router(router)
    if mounts:
        app.mount("/mounted", starlette(error, mounts=False))
        app.mount("/wrapped", Wrapper(fastapi(error, mounts=False)))
        app.mount("/inner", Router([Mount("/mounted", fastapi(error, mounts=False))]))
    return app


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_one_call_makes_routes_answer_as_the_middleware(make: Any, error: RequestError) -> None:
    """Sync and async routes, dependencies, routers and mounted applications: status, headers and body are equal."""
    expected = await by_middleware(error)
    app = make(error)
    assert app is add_problem_handlers(app)
    for path in PATHS:
        answer = await call(app, path=path)
        assert (path, expected.status, expected.json) == (path, answer.status, answer.json)
        assert (path, expected.headers) == (path, answer.headers)


@pytest.mark.parametrize("make", [starlette, fastapi])
async def test_problem_response_is_an_exception_handler(make: Any) -> None:
    """It can be registered for our errors directly, and as `exception_handlers=`."""
    expected = await by_middleware(ERRORS[0])
    app = make(ERRORS[0])
    app.add_exception_handler(RequestError, problem_response)
    for served in (app, make(ERRORS[0], exception_handlers={TokenmwError: problem_response})):
        answer = await call(served, path="/async")
        assert (expected.json, expected.headers) == (answer.json, answer.headers)


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("error", [ConfigurationError("secret_key is missing"), HTTPException(418, "tea"), KeyError()])
async def test_problem_response_raises_other_exceptions(make: Any, error: Exception) -> None:
    """Registered for a base class, it hides no mistake of the program."""
    app = make(error, exception_handlers={type(error): problem_response})
    with pytest.raises(type(error)):
        await call(app, path="/async")


async def test_a_status_without_a_phrase_is_answered() -> None:
    """A program's class may have a status of its own."""

    class Odd(RequestError):
        status = 499

    answer = await by_middleware(Odd("closed"))
    assert (499, "closed") == (answer.status, answer.json["detail"])
    assert "title" not in answer.json


@pytest.mark.parametrize("make", [starlette, fastapi])
async def test_handlers_of_a_mounted_application_are_kept(make: Any) -> None:
    """One that handles our errors itself continues to do so."""

    async def mine(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("mine", 418)

    app = Starlette(routes=[Mount("/in", make(ERRORS[0], exception_handlers={RequestError: mine}))])
    add_problem_handlers(app)
    assert 418 == (await call(app, path="/in/async")).status


async def test_an_application_under_a_host_is_found() -> None:
    """Starlette's `Host` holds an application as `Mount` does, and one application may be mounted twice."""
    inner = starlette(ERRORS[0])
    app = add_problem_handlers(Starlette(routes=[Host("api.example", inner), Mount("/in", inner)]))
    answer = await call(app, path="/async", headers=[(b"host", b"api.example")])
    assert "application/problem+json" == answer.headers["content-type"]


def test_what_is_no_application_is_refused() -> None:
    """The middleware, a router and a class have no exception handlers."""
    for wrong in (TokenMiddleware(Starlette(), broker=TokenBroker({})), APIRouter(), Starlette, None):
        with pytest.raises(ConfigurationError, match="add_problem_handlers takes a Starlette or FastAPI application"):
            add_problem_handlers(wrong)


async def test_an_application_that_has_started_is_refused() -> None:
    """It has copied its handlers, so another one would be ignored without a word."""
    app = starlette(ERRORS[0])
    async with lifespan(app):
        pass
    with pytest.raises(ConfigurationError, match="before the application starts"):
        add_problem_handlers(app)


def websocket_app(make: str, error: Exception, when: str) -> ASGIApp:
    """Make an application with a WebSocket route that raises before `accept`, after it, or after its own close."""

    async def route(websocket: WebSocket) -> None:
        if when != "before":
            await websocket.accept()
        if when == "closed":
            await websocket.close(1000)
        assert websocket.application_state is not WebSocketState.RESPONSE
        raise error

    if make == "starlette":
        return add_problem_handlers(Starlette(routes=[WebSocketRoute("/", route)]))
    app = FastAPI()
    app.websocket("/")(route)
    return add_problem_handlers(app)


@pytest.mark.parametrize("make", ["starlette", "fastapi"])
@pytest.mark.parametrize("middleware", [True, False])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_websocket_route_answers_as_the_middleware(make: str, *, middleware: bool, error: Any) -> None:
    """A denial response or close code before `accept`, 1011 after it, and nothing after a close of its own."""

    async def sent(when: str, **more: Any) -> Exchange:
        app = websocket_app(make, error, when)
        return await call(TokenMiddleware(app, broker=TokenBroker({})) if middleware else app, kind="websocket", **more)

    expected = await by_middleware(error)
    denied = await sent("before", extensions=DENIES)
    assert ["websocket.http.response.start", "websocket.http.response.body"] == denied.kinds
    assert (expected.status, expected.json, expected.headers) == (denied.status, denied.json, denied.headers)
    refused = await sent("before")
    code = close_code(error.status_code)
    assert [{"type": "websocket.close", "code": code, "reason": ""}] == refused.messages
    for extensions in ({}, DENIES):
        closed = await sent("after", extensions=extensions)
        assert ["websocket.accept", "websocket.close"] == closed.kinds
        assert (1011, "") == (closed.messages[1]["code"], closed.messages[1]["reason"])
        assert ["websocket.accept", "websocket.close"] == (await sent("closed", extensions=extensions)).kinds
