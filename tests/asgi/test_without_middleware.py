"""`request.state.tokens` and `.session_id` in an application that has the broker's lifespan, and not the middleware."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.asgi_client import call, lifespan
from tokenmw import ConfigurationError, RequestTokens, TokenBroker, TokenMiddleware, request_tokens, session_id
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


SESSION_USES: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "format": lambda session: f"session:{session}",
    "percent": lambda session: "%s" % session,  # noqa: UP031
    "equal": lambda session: session == "s-1",
    "dict key": lambda session: {session: 1},
    "in a set": lambda session: session in {"s-1", "s-2"},
    "json default": lambda session: json.dumps({"session": session}, default=str),
    "join": lambda session: "-".join(map(str, [session])),
    "method": lambda session: session.encode(),
    "item": lambda session: session[:8],
    "len": len,
    "iter": list,
    "in": lambda session: "a" in session,
    "add": lambda session: "session:" + session,
    "bytes": bytes,
    "path": os.fspath,
    "order": lambda session: session < "s-1",
}


@pytest.mark.parametrize("use", SESSION_USES)
async def test_every_use_of_the_session_id_names_the_middleware(use: str) -> None:
    """Nothing can take the value for an id, which all callers would share."""
    async with lifespan(Starlette(lifespan=TokenBroker({}).lifespan)) as state:
        session = HTTPConnection({"type": "http", "state": dict(state)}).state.session_id
        if use in ("add", "bytes", "path", "order"):  # Python's own error, before it asks the object
            with pytest.raises((ConfigurationError, TypeError)):
                SESSION_USES[use](session)
            return
        with pytest.raises(ConfigurationError, match=r"TokenMiddleware.*not the middleware.*session_id"):
            SESSION_USES[use](session)


async def test_a_program_that_tests_for_a_session_id_finds_none() -> None:
    """The value is false, and reports and copies of it do not raise."""
    async with lifespan(Starlette(lifespan=TokenBroker({}).lifespan)) as state:
        session = state["session_id"]
        assert not session
        assert "without TokenMiddleware" in repr(session)
        assert copy.copy(session) is session
        assert copy.deepcopy({"session": session})
        assert not isinstance(session, str)


@pytest.mark.parametrize("sessions", [True, False])
async def test_the_middleware_takes_the_hint_out(*, sessions: bool) -> None:
    """With the lifespan and the middleware there is an id, or with `sessions=False` no attribute."""
    broker = TokenBroker({})

    async def handler(request: Request) -> PlainTextResponse:
        assert sessions == hasattr(request.state, "session_id")
        return PlainTextResponse("" if not sessions else str(UUID(request.state.session_id)))

    middleware = [Middleware(TokenMiddleware, broker=broker, sessions=sessions, exempt=["/exempt"])]
    app = Starlette(routes=[Route("/", handler)], middleware=middleware, lifespan=broker.lifespan)
    async with lifespan(app) as state:
        assert "session_id" not in state
        assert 200 == (await call(app, state=dict(state))).status


async def test_the_dependency_replaces_the_hint() -> None:
    """In a route that depends on `session_id`, the state has the same id."""
    app = FastAPI(lifespan=TokenBroker({}).lifespan)

    @app.get("/")
    async def route(session: Annotated[str, Depends(session_id)], request: Request) -> bool:
        return bool(session == request.state.session_id)

    async with lifespan(app) as state:
        assert b"true" == (await call(app, state=dict(state))).body


async def test_a_session_id_of_the_program_is_kept() -> None:
    """A state of the program with that name replaces the hint, also behind the middleware."""

    @asynccontextmanager
    async def mine(_app: Any) -> AsyncGenerator[dict[str, Any]]:
        yield {"session_id": "mine"}

    broker = TokenBroker({})
    async with lifespan(Starlette(lifespan=broker.lifespan_with(mine))) as state:
        assert "mine" == state["session_id"]


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
