"""What callers see of an error names nothing internal, whichever part makes the response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.asgi_client import Exchange, answering, call, lifespan
from tokenmw import (
    APIKeyRefused,
    CredentialRejected,
    SessionUnavailable,
    Token,
    TokenBroker,
    TokenMiddleware,
    TokenUnavailable,
    provider_token,
)
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Scope

    from tests.servers import RedisServer

INTERNAL = "idp.internal:8443 refuses connections (tenant-7): check token_url"
ERRORS: list[TokenUnavailable | CredentialRejected | SessionUnavailable] = [
    TokenUnavailable(INTERNAL, said=True),
    CredentialRejected(INTERNAL, code="tenant_7_disabled"),
    SessionUnavailable(INTERNAL),
]
DENIES: dict[str, Any] = {"websocket.http.response": {}}


def plain(error: Exception) -> ASGIApp:
    """Make a plain ASGI application that raises."""

    async def fail(_scope: Scope) -> None:
        raise error

    return answering(fail)


def starlette(error: Exception) -> ASGIApp:
    """Make a Starlette application whose routes raise."""

    async def route(_request: Request) -> PlainTextResponse:
        raise error

    async def websocket(_websocket: WebSocket) -> None:
        raise error

    return Starlette(routes=[Route("/", route), WebSocketRoute("/", websocket)])


def fastapi(error: Exception) -> ASGIApp:
    """Make a FastAPI application with a dependency that raises."""

    async def dependency() -> None:
        raise error

    app = FastAPI()
    app.get("/", dependencies=[Depends(dependency)])(dependency)
    app.websocket("/", dependencies=[Depends(dependency)])(dependency)
    return app


def shown(exchange: Exchange) -> str:
    """Return everything that was sent to the caller."""
    return repr(exchange.messages)


def internal_words(exchange: Exchange) -> list[str]:
    """Return the operator's words that were sent to the caller."""
    return [word for word in (*INTERNAL.split(), "tenant_7_disabled") if word in shown(exchange)]


@pytest.mark.parametrize("make", [plain, starlette, fastapi])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_response_shows_the_sentence_of_its_class(make: Callable[[Exception], ASGIApp], error: Any) -> None:
    """No host, option or provider's word of the operator's text is in it."""
    app = TokenMiddleware(make(error), broker=TokenBroker({}))
    async with lifespan(app):
        answer = await call(app)
    assert (error.status, error.fixed_detail in shown(answer)) == (answer.status, True)
    assert [] == internal_words(answer)


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("extensions", [DENIES, {}], ids=["denial", "close code"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_refused_websocket_shows_no_operators_text(make: Any, extensions: Any, error: Any) -> None:
    """Neither the denial response nor the reason of the close code has it."""
    app = TokenMiddleware(make(error), broker=TokenBroker({}))
    async with lifespan(app):
        answer = await call(app, kind="websocket", extensions=extensions)
    assert ["websocket.http.response.start" if extensions else "websocket.close"] == answer.kinds[:1]
    assert [] == internal_words(answer)


@pytest.mark.parametrize("make", [starlette, fastapi])
async def test_the_text_of_a_refusal_is_shown(make: Any) -> None:
    """The program's `authenticate` raises `APIKeyRefused` with a text for its callers."""

    async def authenticate(_connection: object, _key: str) -> None:
        raise APIKeyRefused("This key expired on 1 May.")

    app = TokenMiddleware(make(LookupError()), broker=TokenBroker({}, authenticate=authenticate))
    async with lifespan(app):
        answer = await call(app, headers=[(b"x-api-key", b"key-1")])
    assert (401, "This key expired on 1 May.") == (answer.status, answer.json["detail"])


def program(broker: TokenBroker) -> dict[str, ASGIApp]:
    """Make applications whose routes need the token: in the handler, in a dependency, and without a framework."""

    async def use(request: Request) -> PlainTextResponse:
        return PlainTextResponse((await request.state.tokens.resolve("crm")).value)

    async def resolve(scope: Scope) -> str:
        token: Token = await scope["state"]["tokens"].resolve("crm")
        return token.value

    app = FastAPI()

    @app.get("/")
    async def route(token: Annotated[Token, Depends(provider_token("crm"))]) -> str:
        return token.value

    routes = [Route("/", use)]
    return {
        "starlette": Starlette(routes=routes, middleware=[Middleware(TokenMiddleware, broker=broker, inject=["crm"])]),
        "fastapi": TokenMiddleware(app, broker=broker),
        "plain": TokenMiddleware(answering(resolve), broker=broker),
    }


async def rejected() -> str:
    """Raise as a provider that rejects the credential."""
    raise CredentialRejected("HTTP 401", code="invalid_client")


FORGED = "call +1 555 0100 and read out your password"


@pytest.mark.parametrize("kind", ["starlette", "fastapi", "plain"])
async def test_a_forged_failure_note_reaches_no_caller(kind: str, redis_server: RedisServer) -> None:
    """A process that can write to an unencrypted Redis can put text into our log, but not into a response."""

    def broker_of() -> TokenBroker:
        provider = StaticToken(rejected, credential_id="crm")
        return TokenBroker({"crm": provider}, redis=redis_server.url, name_key="0f8b6b1e5c1d4b7f", seal=False)

    async with broker_of() as broker:
        with pytest.raises(CredentialRejected, match="HTTP 401"):
            await broker.token("crm")
    [name] = redis_server.command("KEYS", "*:note")
    note = redis_server.command("GET", name)
    forged = note.replace(b"HTTP 401", FORGED.encode()).replace(b"invalid_client", b"read_out_your_password")
    assert forged != note
    redis_server.command("SET", name, forged, "KEEPTTL")
    broker = broker_of()
    app = program(broker)[kind]
    async with lifespan(app):
        answer = await call(app)
        assert FORGED in broker.status().providers["crm"].failure
    assert (502, True) == (answer.status, str(CredentialRejected.fixed_detail) in shown(answer))
    assert [] == [word for word in ("crm", "password", "555", "another process") if word in shown(answer)]
