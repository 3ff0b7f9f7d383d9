"""Sync handlers in worker threads, and a middleware inside a mounted application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import anyio.from_thread
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from tokenmw import ConfigurationError, Provider, TokenBroker, TokenMiddleware, TokenUnavailable
from tokenmw.asgi.request import RequestTokens
from tokenmw.fastapi import Tokens
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock


def tenant(_: object) -> Provider:
    """Choose credentials for a request."""
    return StaticToken("of-tenant")


def handler(request: Request) -> JSONResponse:
    """Use an injected token and resolve another one, in a worker thread."""
    tokens: RequestTokens = request.state.tokens
    other = anyio.from_thread.run(tokens.resolve, "tenant")
    return JSONResponse([request.state.session_id, tokens["a"].value, other.value])


def with_middleware(broker: TokenBroker) -> Starlette:
    """Make an application with the middleware."""
    return Starlette(
        routes=[Route("/", handler)], middleware=[Middleware(TokenMiddleware, broker=broker, inject=["a"])]
    )


def test_a_sync_handler_uses_session_id_and_tokens() -> None:
    """It reads the session id and injected tokens directly, and resolves others in the event loop."""
    broker = TokenBroker({"a": StaticToken("t"), "tenant": tenant}, secret_key="a secret for the tests only")
    with TestClient(with_middleware(broker), headers={"x-api-key": "alice"}) as client:
        answers = [client.get("/").json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert ["t", "of-tenant"] == answers[0][1:]


@pytest.mark.parametrize("lifespan", [True, False])
def test_a_mounted_middleware_is_opened_by_the_outermost_lifespan(
    caplog: pytest.LogCaptureFixture, *, lifespan: bool
) -> None:
    """A mounted application gets no lifespan events; without any, the broker opens itself, and logs it."""
    broker = TokenBroker({"a": StaticToken("t"), "tenant": tenant}, secret_key="a secret for the tests only")
    outermost = Starlette(
        routes=[Mount("/one", with_middleware(broker)), Mount("/two", with_middleware(broker))],
        lifespan=broker.lifespan if lifespan else None,
    )
    with caplog.at_level(logging.WARNING), TestClient(outermost, headers={"x-api-key": "alice"}) as client:
        assert client.get("/one/").json() == client.get("/two/").json()
    assert lifespan is ("nothing will close it" not in caplog.text)


async def value() -> str:
    """Return a token."""
    return "t"


def used_off_the_loop(use: Callable[[RequestTokens, TokenBroker], object], *, clock: ManualClock) -> str:
    """Use tokens in a sync route of FastAPI after they have expired, and return the error's text."""
    broker = TokenBroker({"a": StaticToken(value), "cold": StaticToken(value)}, clock=clock)
    app = FastAPI()
    app.add_middleware(TokenMiddleware, broker=broker, inject=["a"])
    texts: list[str] = []

    @app.get("/")
    def route(tokens: Tokens) -> None:
        clock.advance(3_600)
        with pytest.raises((ConfigurationError, TokenUnavailable, KeyError)) as caught:
            use(tokens, broker)
        texts.append(str(caught.value))
        texts.append(anyio.from_thread.run(tokens.resolve, "cold").value)  # what the text says

    with TestClient(app) as client:
        assert 200 == client.get("/").status_code
    assert "t" == texts[1]
    return texts[0]


OFF_THE_LOOP: dict[str, Callable[[RequestTokens, TokenBroker], object]] = {
    "resolve": lambda tokens, _broker: asyncio.run(tokens.resolve("cold")),
    "token": lambda _tokens, broker: asyncio.run(broker.token("cold")),
    "session_id": lambda _tokens, broker: asyncio.run(broker.session_id("k")),
    "expired": lambda tokens, _broker: tokens["a"],
    "not injected": lambda tokens, _broker: tokens["cold"],
}


@pytest.mark.parametrize("use", OFF_THE_LOOP)
def test_a_use_off_the_loop_names_the_call_for_threads(use: str) -> None:
    """A sync handler that starts an event loop of its own, or reads a token that must be fetched, gets the fix."""
    assert "anyio.from_thread.run(" in used_off_the_loop(OFF_THE_LOOP[use], clock=ManualClock())
