"""The state of a request is available wherever its code runs: threads, streams, background tasks, handlers."""

from __future__ import annotations

import asyncio
import contextlib
import typing
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from tests.asgi_client import Source, call, lifespan
from tokenmw import RequestState, TokenBroker, TokenMiddleware, session_id
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

KEY = (b"x-api-key", b"k-1")


def seen(request: Request) -> list[str]:
    """Return the session id and the token of a request."""
    return [request.state.session_id, request.state.tokens["a"].value]


def behind(broker: TokenBroker, *routes: Any, outside: tuple[Middleware, ...] = (), **options: Any) -> Starlette:
    """Make an application behind the middleware."""
    ours = Middleware(TokenMiddleware, broker=broker, inject=["a"])
    return Starlette(routes=routes, middleware=[*outside, ours], **options)


@pytest.fixture
def clock() -> ManualClock:
    """Return the broker's clock."""
    return ManualClock()


@pytest.fixture
def source() -> Source:
    """Return the provider's function."""
    return Source()


@pytest.fixture
async def broker(source: Source, clock: ManualClock) -> AsyncGenerator[TokenBroker]:
    """Open a broker with one provider."""
    async with TokenBroker({"a": StaticToken(source)}, clock=clock) as broker:
        yield broker


class State(RequestState):
    """The state of an application that adds a field of its own in its lifespan."""

    database: str


async def test_a_typed_request_reads_the_state_by_key(clock: ManualClock) -> None:
    """`Request[State]` works at run time, with the lifespan's own field, the caller, the session id and the tokens."""

    async def route(request: Request[State]) -> Response:
        state = request.state
        return JSONResponse([state["session_id"], state["tokens"]["a"].value, state["caller"], state["database"]])

    @contextlib.asynccontextmanager
    async def own(_app: Starlette) -> AsyncGenerator[dict[str, str]]:
        yield {"database": "postgresql"}

    broker = TokenBroker({"a": StaticToken("t")}, clock=clock, authenticate=lambda _connection, key: f"caller {key}")
    app = behind(broker, Route("/", route), lifespan=own)
    async with lifespan(app) as state:
        answer = await call(app, headers=[KEY], state=dict(state))
        assert [await broker.session_id("k-1"), "t", "caller k-1", "postgresql"] == answer.json
    assert {"session_id", "caller", "tokens"} == typing.get_type_hints(RequestState).keys()


async def test_a_sync_route_reads_it(broker: TokenBroker, source: Source, clock: ManualClock) -> None:
    """In a worker thread an aging token is returned, too, and the lookup starts the refresh."""

    def route(request: Request) -> Response:
        before = seen(request)
        clock.advance(3000)
        return JSONResponse([before, seen(request)])

    app = behind(broker, Route("/", route))
    mine = await broker.session_id("k-1")
    assert [[mine, "t-1"], [mine, "t-1"]] == (await call(app, headers=[KEY])).json
    await clock.elapse(0)
    assert 2 == source.calls
    assert [mine, "t-2"] == (await call(app, headers=[KEY])).json[0]


async def test_a_streaming_body_reads_it(broker: TokenBroker, clock: ManualClock) -> None:
    """A long body gets the new token as soon as there is one."""

    async def route(request: Request) -> Response:
        async def body() -> AsyncGenerator[str]:
            for _ in range(3):
                yield " ".join(seen(request)) + "\n"
                clock.advance(3000)
                seen(request)  # starts the refresh
                await clock.elapse(0)

        return StreamingResponse(body())

    mine = await broker.session_id("k-1")
    answer = await call(behind(broker, Route("/", route)), headers=[KEY])
    assert [f"{mine} t-{number}" for number in (1, 2, 3)] == answer.body.decode().splitlines()


async def test_background_tasks_read_it(broker: TokenBroker) -> None:
    """Async and sync ones do, after the response has been sent."""
    found: list[list[str]] = []

    async def later(request: Request) -> None:
        found.append([*seen(request), (await request.state.tokens.resolve("a")).value])

    async def route(request: Request) -> Response:
        both = BackgroundTasks([BackgroundTask(later, request), BackgroundTask(lambda: found.append(seen(request)))])
        return PlainTextResponse("", background=both)

    await call(behind(broker, Route("/", route)), headers=[KEY])
    mine = await broker.session_id("k-1")
    assert [[mine, "t-1", "t-1"], [mine, "t-1"]] == found


@pytest.mark.parametrize("again", [False, True])
async def test_a_mounted_application_reads_it(broker: TokenBroker, again: bool) -> None:  # noqa: FBT001  as pytest gives it
    """It does with and without a middleware of its own, which uses the same session id."""

    async def route(request: Request) -> Response:
        assert request.state.session_id == await session_id(request)
        return JSONResponse(seen(request))

    ours = [Middleware(TokenMiddleware, broker=broker, inject=["a"])] if again else []
    inner = Starlette(routes=[Route("/", route)], middleware=ours)
    app = behind(broker, Mount("/inner", inner))
    assert [await broker.session_id("k-1"), "t-1"] == (await call(app, path="/inner/", headers=[KEY])).json
    anonymous = [(await call(app, path="/inner/")).json[0] for _ in range(2)]
    assert 2 == len(set(anonymous))


@pytest.mark.parametrize("error", [LookupError, ValueError, Exception])
async def test_exception_handlers_read_it(broker: TokenBroker, error: type[Exception]) -> None:
    """The handler of `Exception` does, too, which runs outside of all middlewares."""

    async def route(_request: Request) -> Response:
        raise error

    async def handler(request: Request, _error: Exception) -> Response:
        return JSONResponse(seen(request), status_code=418)

    app = behind(broker, Route("/", route), exception_handlers={error: handler})
    mine = await broker.session_id("k-1")
    scope: Any = None

    async def catching(inner: Any, receive: Any, send: Any) -> None:
        nonlocal scope
        scope = send.__self__
        try:
            await app(inner, receive, send)
        except Exception as raised:
            if type(raised) is not error:
                raise

    await call(catching, headers=[KEY])
    assert (418, [mine, "t-1"]) == (scope.status, scope.json)


async def test_an_outer_middleware_reads_it(broker: TokenBroker) -> None:
    """One that has used the state before finds the session id there after the response, for its log line."""
    logged: list[str] = []

    async def log(request: Request, call_next: Callable[[Request], Any]) -> Response:
        request.state.began = 1
        response: Response = await call_next(request)
        logged.append(f"{request.state.began} {request.state.session_id}")
        return response

    async def route(request: Request) -> Response:
        return JSONResponse([*seen(request), request.state.began])

    outside = (Middleware(BaseHTTPMiddleware, dispatch=log),)
    answer = await call(behind(broker, Route("/", route), outside=outside), headers=[KEY])
    mine = await broker.session_id("k-1")
    assert [mine, "t-1", 1] == answer.json
    assert [f"1 {mine}"] == logged


async def test_concurrent_requests_read_their_own(broker: TokenBroker) -> None:
    """Each of a hundred callers has its own session id, and the state of the lifespan."""

    async def route(request: Request) -> Response:
        await asyncio.sleep(0)
        return JSONResponse([request.state.session_id, request.headers["x-api-key"], request.state.tokenmw is broker])

    app = behind(broker, Route("/", route))
    async with lifespan(app) as state:
        keys = [f"k-{number}" for number in range(100)]
        calls = [call(app, headers=[(b"x-api-key", key.encode())], state=dict(state)) for key in keys]
        answers = [answer.json for answer in await asyncio.gather(*calls)]
        assert [[await broker.session_id(key), key, True] for key in keys] == answers
        assert {"tokenmw"} == set(state), "a request leaves nothing in the application's state"
