"""Two middlewares with two brokers around one application are reported; two with one broker are fine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.providers import StaticToken

KIND = "two-brokers"


async def names(request: Request) -> JSONResponse:
    """Answer with the names of the injected tokens."""
    return JSONResponse(list(request.state.tokens))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of this kind."""
    return [record.getMessage() for record in caplog.records if getattr(record, "tokenmw.kind", "") == KIND]


def answers(app: Any, *paths: str) -> list[Any]:
    """Start an application, and return the answers to requests."""
    with TestClient(app) as client:
        return [client.get(path).json() for path in paths]


def middleware(broker: TokenBroker, *inject: str) -> Middleware:
    """Make a middleware of a broker."""
    return Middleware(TokenMiddleware, broker=broker, inject=inject)


@pytest.fixture
def brokers() -> list[TokenBroker]:
    """Return two brokers with one provider each."""
    return [TokenBroker({name: StaticToken(name)}) for name in ("a", "b")]


def test_two_brokers_around_one_application_are_reported_at_the_start(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """The tokens of the outer one are not in the request's state. The line names both brokers and the fix."""
    stack = [middleware(brokers[0], "a"), middleware(brokers[1], "b")]
    assert [["b"]] == answers(Starlette(routes=[Route("/", names)], middleware=stack), "/")
    (text,) = warnings_in(caplog)
    assert "<TokenBroker of a>" in text
    assert "<TokenBroker of b>" in text
    assert "one broker" in text


def test_they_are_reported_however_the_application_is_wrapped(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """From outside, and by `add_middleware`."""
    api = FastAPI()
    api.add_middleware(TokenMiddleware, broker=brokers[0])
    answers(TokenMiddleware(api, broker=brokers[1]))
    assert 1 == len(warnings_in(caplog))


def test_one_broker_in_several_middlewares_is_not_reported(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """Around one application, and around a mounted one."""
    inner = Starlette(routes=[Route("/", names)], middleware=[middleware(brokers[0], "a")])
    app = Starlette(routes=[Mount("/in", inner)], middleware=[middleware(brokers[0]), middleware(brokers[0])])
    assert [["a"]] == answers(app, "/in/")
    assert not warnings_in(caplog)


def test_a_mounted_application_with_a_broker_of_its_own_is_not_reported(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """Its requests have its own tokens, and those of the outer application the other ones."""
    inner = Starlette(routes=[Route("/", names)], middleware=[middleware(brokers[1], "b")])
    routes = [Route("/", names), Mount("/in", inner)]
    app = Starlette(routes=routes, middleware=[middleware(brokers[0], "a")], lifespan=brokers[1].lifespan)
    assert [["a"], ["b"]] == answers(app, "/", "/in/")
    assert not warnings_in(caplog)


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("wrapped", [False, True], ids=["add_middleware", "around"])
def test_the_lifespan_of_another_broker_is_reported(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture, make: Any, *, wrapped: bool
) -> None:
    """It opens a broker that no request uses. The line names both brokers and the fix."""
    app = make(lifespan=brokers[1].lifespan)
    app.add_route("/", names)
    if not wrapped:
        app.add_middleware(TokenMiddleware, broker=brokers[0], inject=["a"])
    assert [["a"]] == answers(TokenMiddleware(app, broker=brokers[0], inject=["a"]) if wrapped else app, "/")
    (text,) = warnings_in(caplog)
    assert "TokenMiddleware has <TokenBroker of a>" in text
    assert "the lifespan has <TokenBroker of b>" in text
    assert "one broker" in text


def test_the_lifespan_of_the_same_broker_is_not_reported(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """As in an application that names it twice."""
    routes = [Route("/", names)]
    answers(Starlette(routes=routes, middleware=[middleware(brokers[0])], lifespan=brokers[0].lifespan), "/")
    assert not warnings_in(caplog)


@pytest.mark.parametrize("inner", [0, 1])
def test_one_line_for_two_middlewares_and_a_lifespan(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture, inner: int
) -> None:
    """Each pair of brokers is reported once, however many parts have them."""
    stack = [middleware(brokers[0], "a"), middleware(brokers[inner])]
    answers(Starlette(routes=[Route("/", names)], middleware=stack, lifespan=brokers[1].lifespan), "/")
    assert 1 == len(warnings_in(caplog))


def test_a_broker_in_the_programs_own_lifespan_state_is_no_conflict(
    brokers: list[TokenBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """Under a name of the program's it is its own affair."""

    @asynccontextmanager
    async def mine(_app: Any) -> AsyncGenerator[dict[str, Any]]:
        async with brokers[1]:
            yield {"batch": brokers[1]}

    answers(Starlette(routes=[Route("/", names)], middleware=[middleware(brokers[0])], lifespan=mine), "/")
    assert not warnings_in(caplog)
