"""`request.state.tokens` in an application that has the broker's lifespan, and not the middleware."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.asgi_client import call, lifespan
from tokenmw import ConfigurationError, RequestTokens, TokenBroker, TokenMiddleware, request_tokens
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

USES: dict[str, Callable[[Any], Any]] = {
    "item": lambda tokens: tokens["crm"],
    "in": lambda tokens: "crm" in tokens,
    "iter": list,
    "len": len,
    "attribute": lambda tokens: tokens.resolve("crm"),
    "auth": lambda tokens: tokens.auth("crm"),
}


@asynccontextmanager
async def running(broker: TokenBroker) -> AsyncGenerator[Any]:
    """Yield the value of `request.state.tokens` in an application that has the lifespan only."""
    async with lifespan(Starlette(lifespan=broker.lifespan)) as state:
        yield HTTPConnection({"type": "http", "state": dict(state)}).state.tokens


@pytest.mark.parametrize("use", USES)
async def test_every_use_names_the_middleware(use: str) -> None:
    """Starlette's own text would be that a `State` object has no attribute 'tokens'."""
    async with running(TokenBroker({"crm": StaticToken("t")})) as tokens:
        with pytest.raises(ConfigurationError, match=r"TokenMiddleware.*not the middleware.*provider_token"):
            USES[use](tokens)


async def test_a_program_that_tests_for_tokens_finds_none() -> None:
    """The value is false, and reports and copies of it do not raise."""
    async with running(TokenBroker({"crm": StaticToken("t")})) as tokens:
        assert not tokens
        assert "without TokenMiddleware" in repr(tokens)
        assert copy.copy(tokens) is tokens
        assert copy.deepcopy({"tokens": tokens})
        assert not isinstance(tokens, RequestTokens)
        assert not hasattr(tokens, "__await__")


async def test_the_response_is_500_and_the_error_has_the_hint() -> None:
    """In a route of FastAPI the error reaches the server's log."""
    app = FastAPI(lifespan=TokenBroker({"crm": StaticToken("t")}).lifespan)

    @app.get("/")
    async def route(request: Request) -> str:
        return str(request.state.tokens["crm"].value)

    async with lifespan(app) as state:
        with pytest.raises(ConfigurationError, match="TokenMiddleware"):
            await call(app, state=dict(state))


async def test_the_programs_own_state_is_kept() -> None:
    """A state of the program named `tokens` replaces the hint."""

    @asynccontextmanager
    async def mine(_app: Any) -> AsyncGenerator[dict[str, Any]]:
        yield {"tokens": ["mine"], "database": "postgresql"}

    async with lifespan(Starlette(lifespan=TokenBroker({}).lifespan_with(mine))) as state:
        assert (["mine"], "postgresql") == (state["tokens"], state["database"])


@pytest.mark.parametrize("shared", [False, True], ids=["a copy each", "one state"])
async def test_the_middleware_and_dependencies_replace_it(*, shared: bool) -> None:
    """With both, and with a dependency, each request has its own tokens, even if a server copies no state."""
    broker = TokenBroker({"crm": StaticToken("t")})
    seen: list[RequestTokens] = []

    async def handler(request: Request) -> PlainTextResponse:
        seen.append(request.state.tokens)
        return PlainTextResponse(request.state.tokens["crm"].value)

    middleware = [Middleware(TokenMiddleware, broker=broker, inject=["crm"])]
    app = FastAPI(lifespan=broker.lifespan)

    @app.get("/")
    async def route(tokens: Annotated[RequestTokens, Depends(request_tokens)], request: Request) -> str:
        seen.append(tokens)
        assert request.state.tokens is tokens
        value: str = (await tokens.resolve("crm")).value
        return value

    for served in (Starlette(routes=[Route("/", handler)], middleware=middleware, lifespan=broker.lifespan), app):
        async with lifespan(served) as state:
            for _ in range(2):
                answer = await call(served, state=state if shared else dict(state))
                assert (200, b"t") == (answer.status, answer.body.strip(b'"'))
    assert 4 == len({id(tokens) for tokens in seen})
