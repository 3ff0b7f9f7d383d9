"""Sync handlers in worker threads, and a middleware inside a mounted application."""

from __future__ import annotations

import logging

import anyio.from_thread
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from tokenmw import Provider, TokenBroker, TokenMiddleware
from tokenmw.asgi.request import RequestTokens
from tokenmw.providers import StaticToken


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
    broker = TokenBroker({"a": StaticToken("t"), "tenant": tenant}, secret_key="k" * 32)
    with TestClient(with_middleware(broker), headers={"x-api-key": "alice"}) as client:
        answers = [client.get("/").json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert ["t", "of-tenant"] == answers[0][1:]


@pytest.mark.parametrize("lifespan", [True, False])
def test_a_mounted_middleware_is_opened_by_the_outermost_lifespan(
    caplog: pytest.LogCaptureFixture, *, lifespan: bool
) -> None:
    """A mounted application gets no lifespan events; without any, the broker opens itself, and logs it."""
    broker = TokenBroker({"a": StaticToken("t"), "tenant": tenant}, secret_key="k" * 32)
    outermost = Starlette(
        routes=[Mount("/one", with_middleware(broker)), Mount("/two", with_middleware(broker))],
        lifespan=broker.lifespan if lifespan else None,
    )
    with caplog.at_level(logging.WARNING), TestClient(outermost, headers={"x-api-key": "alice"}) as client:
        assert client.get("/one/").json() == client.get("/two/").json()
    assert lifespan is ("nothing will close it" not in caplog.text)
