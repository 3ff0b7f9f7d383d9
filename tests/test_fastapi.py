"""Annotations fill the parameters of FastAPI routes, and a route that returns a secret by mistake does not show it."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, WebSocket
from fastapi.exceptions import FastAPIError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tokenmw import (
    ConfigurationError,
    RequestTokens,
    Token,
    TokenBroker,
    TokenMiddleware,
    provider_token,
    request_tokens,
    session_id,
)
from tokenmw.fastapi import SessionID, Tokens, token_from
from tokenmw.providers import Grant, Provider, StaticToken
from tokenmw.testing import make_token

SECRET = "s3cret-t0ken"
KEY = {"x-api-key": "k-1"}
CALLS: list[str] = []


async def credential_of(tenant: str, x_region: Annotated[str, Header()] = "eu") -> Provider:
    """Choose a credential by the path and a header."""
    CALLS.append(tenant)
    return StaticToken(f"{tenant}-{x_region}")


def plain_credential_of(tenant: str) -> Provider:
    """Choose a credential by the path, in a worker thread."""
    return StaticToken(f"{tenant}-plain")


A = Annotated[Token, Depends(provider_token("a"))]
OfTenant = Annotated[Token, Depends(token_from(credential_of))]


@pytest.fixture
def broker() -> TokenBroker:
    """Return a broker with one provider."""
    return TokenBroker({"a": StaticToken(SECRET)})


@pytest.fixture(params=["lifespan", "middleware"])
def app(request: pytest.FixtureRequest, broker: TokenBroker) -> FastAPI:
    """Make an application with the broker's lifespan, or with the middleware."""
    if request.param == "lifespan":
        app = FastAPI(lifespan=broker.lifespan)
    else:
        app = FastAPI()
        app.add_middleware(TokenMiddleware, broker=broker, inject=["a"])

    @app.get("/async")
    async def in_loop(session: SessionID, a: A, again: A, tokens: Tokens) -> list[Any]:
        return [session, a.value == SECRET, a is again, (await tokens.resolve("a")).provider]

    @app.get("/sync")
    def in_thread(session: SessionID, a: A, tokens: Tokens) -> list[Any]:
        return [session, a.value == SECRET, "a" in tokens]

    @app.get("/of/{tenant}")
    async def of_tenant(token: OfTenant, same: Annotated[Token, Depends(token_from(credential_of))]) -> list[str]:
        return [token.value, token.provider, same.value]

    @app.get("/plain/{tenant}")
    def plain_of(token: Annotated[Token, Depends(token_from(plain_credential_of))]) -> str:
        return token.value

    @app.websocket("/ws/{tenant}")
    async def socket(websocket: WebSocket, session: SessionID, token: OfTenant, tokens: Tokens) -> None:
        await websocket.accept()
        await websocket.send_json([session, token.value, (await tokens.resolve("a")).value == SECRET])

    return app


def test_parameters_are_filled(app: FastAPI, broker: TokenBroker) -> None:
    """In async, sync and WebSocket routes, with postponed annotations, with the lifespan or the middleware."""
    with TestClient(app, headers=KEY) as client:
        session, *rest = client.get("/async").json()
        assert [True, True, "a"] == rest
        assert [session, True] == client.get("/sync").json()[:2]
        with client.websocket_connect("/ws/acme") as websocket:
            assert [session, "acme-eu", True] == websocket.receive_json()


def test_a_dependency_chooses_the_credential(app: FastAPI) -> None:
    """It is called once in a request, and its parameters are documented with those of the route."""
    CALLS.clear()
    with TestClient(app) as client:
        assert ["acme-us", "static", "acme-us"] == client.get("/of/acme", headers={"x-region": "us"}).json()
        assert ["acme"] == CALLS
        assert "acme-plain" == client.get("/plain/acme").json()
        parameters = client.get("/openapi.json").json()["paths"]["/of/{tenant}"]["get"]["parameters"]
    assert {("tenant", "path"), ("x-region", "header")} == {(one["name"], one["in"]) for one in parameters}


def test_dependencies_can_be_overridden(app: FastAPI) -> None:
    """An equal dependency, or the public function, is the key in `dependency_overrides`."""
    fake = make_token("fake", provider="a")
    app.dependency_overrides = {
        provider_token("a"): lambda: fake,
        session_id: lambda: "session-1",
        token_from(plain_credential_of): lambda: make_token("chosen"),
        credential_of: lambda: StaticToken("other"),
    }
    with TestClient(app) as client:
        assert ["session-1", False] == client.get("/sync").json()[:2]
        assert "chosen" == client.get("/plain/acme").json()
        assert ["other", "static", "other"] == client.get("/of/acme").json()
        app.dependency_overrides = {request_tokens: lambda: {"a": "here"}}
        assert client.get("/sync").json()[2]


def test_openapi_documents_where_the_api_key_goes(app: FastAPI) -> None:
    """It shows bearer or header for routes with a `SessionID` only, and a request without either is served."""
    with TestClient(app) as client:
        document = client.get("/openapi.json").json()
        assert 200 == client.get("/sync").status_code
    assert [{"BearerAPIKey": []}, {"HeaderAPIKey": []}] == document["paths"]["/sync"]["get"]["security"]
    assert "security" not in document["paths"]["/of/{tenant}"]["get"]
    bearer, header = document["components"]["securitySchemes"].values()
    assert ("http", "bearer") == (bearer["type"], bearer["scheme"])
    assert ("apiKey", "header", "x-api-key") == (header["type"], header["in"], header["name"])


@pytest.mark.parametrize("wrong", [None, "a", 5])
def test_token_from_takes_a_dependency(wrong: Any, broker: TokenBroker) -> None:
    """Anything else is refused at once, and a result that is no provider is not shown."""
    with pytest.raises(ConfigurationError, match="token_from takes a dependency"):
        token_from(wrong)
    app = FastAPI(lifespan=broker.lifespan)

    @app.get("/")
    async def route(token: Annotated[Token, Depends(token_from(lambda: {"secret": SECRET}))]) -> None: ...

    with TestClient(app) as client, pytest.raises(ConfigurationError, match="return a Provider, not dict") as caught:
        client.get("/")
    assert SECRET not in str(caught.value)


def test_token_from_with_a_provider_names_the_fix() -> None:
    """A provider is not a dependency, but a function that returns it is; two of one function are equal."""
    with pytest.raises(ConfigurationError, match="lambda"):
        token_from(StaticToken("t"))  # type: ignore[arg-type]
    assert token_from(credential_of) == token_from(credential_of)
    assert hash(token_from(credential_of)) == hash(token_from(credential_of))
    assert token_from(credential_of) != token_from(plain_credential_of)
    assert "credential_of" in repr(token_from(credential_of))


SECRET_OBJECTS = ["token", "grant", "provider", "tokens", "broker", "auth"]


def secret_object(request: Request, broker: TokenBroker, name: str) -> Any:
    """Return an object that holds or reaches a secret."""
    tokens: RequestTokens = request.state.tokens
    grant = Grant(SECRET, expires_in=60)
    objects = {
        "token": tokens["a"],
        "grant": grant,
        "provider": StaticToken(SECRET),
        "tokens": tokens,
        "broker": broker,
    }
    return {**objects, "auth": broker.auth("a")}[name]


@pytest.mark.parametrize("name", SECRET_OBJECTS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_route_that_returns_a_secret_does_not_show_it(name: str, wrapped: bool, broker: TokenBroker) -> None:  # noqa: FBT001  as pytest gives it
    """Alone or in a dict, in Starlette and FastAPI, with and without an annotation, with debug pages on."""
    app = FastAPI(debug=True)

    def wrap(value: Any) -> Any:
        return {"it": [value]} if wrapped else value

    @app.get("/plain")
    async def plain(request: Request):  # type: ignore[no-untyped-def]  # noqa: ANN202  the case under test
        return wrap(secret_object(request, broker, name))

    @app.get("/any")
    async def anything(request: Request) -> Any:
        return wrap(secret_object(request, broker, name))

    async def starlette(request: Request) -> JSONResponse:
        return JSONResponse(wrap(secret_object(request, broker, name)))

    app.mount("/starlette", Starlette(routes=[Route("/", starlette)]))
    app.add_middleware(TokenMiddleware, broker=broker, inject=["a"])
    with TestClient(app, raise_server_exceptions=False) as client:
        for path in ("/plain", "/any", "/starlette/"):
            answer = client.get(path)
            assert 500 == answer.status_code
            assert SECRET not in answer.text


def test_a_class_of_providers_is_not_a_dependency() -> None:
    """FastAPI would make query parameters of its options, so that a caller could choose the URL and the secret."""
    with pytest.raises(ConfigurationError, match="was given the class StaticToken: pass a function"):
        token_from(StaticToken)


@pytest.mark.parametrize("kind", [Token, Grant, Provider, RequestTokens, TokenBroker])
def test_a_return_annotation_of_a_secret_is_refused(kind: Any) -> None:
    """FastAPI cannot encode it, and raises when the route is made."""
    app = FastAPI()

    def route() -> Any: ...

    route.__annotations__["return"] = kind
    with pytest.raises(FastAPIError):
        app.get("/")(route)


def test_without_fastapi_the_import_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is a `ConfigurationError`, and an `ImportError` for programs that check which extras they have."""
    monkeypatch.delitem(sys.modules, "tokenmw.fastapi")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenmw\[fastapi\]"') as caught:
        importlib.import_module("tokenmw.fastapi")
    assert isinstance(caught.value, ImportError)


def test_token_from_refuses_callers_that_authenticate_refuses() -> None:
    """With the lifespan alone, in a route that needs no session id."""
    broker = TokenBroker({}, authenticate=lambda _connection, key: key == "k-1", missing_key="reject")
    api = FastAPI(lifespan=broker.lifespan)

    @api.get("/{tenant}")
    async def length(token: Annotated[Token, Depends(token_from(credential_of))]) -> int:
        return len(token.value)

    with TestClient(api) as client:
        assert [401, 401, 200] == [
            client.get("/t", headers=headers).status_code for headers in ({}, {"x-api-key": "k-2"}, KEY)
        ]
