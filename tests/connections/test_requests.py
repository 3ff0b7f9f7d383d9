"""Requests that use the connection of their user: tokens, auth objects, and errors that a front end can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.connections.memory_store import MemoryStore
from tests.connections.world import SECRET, World, app
from tokenmw import Token, TokenBroker, TokenMiddleware, provider_token
from tokenmw.connections import Connections
from tokenmw.problems import add_problem_handlers

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import HTTPConnection, Request


def signed_in(connection: HTTPConnection) -> str | None:
    """Return the user whom a header names."""
    return connection.headers.get("x-user")


async def signed_in_later(connection: HTTPConnection) -> str | None:
    """Return the same, as a look into a session store would."""
    return signed_in(connection)


def broker_of(world: World, subject: Callable[[Any], Any]) -> TokenBroker:
    """Make a broker whose requests have users."""
    config = Connections({"crm": app("crm")}, store=world.store, subject=subject, connect_path="/settings/connect")
    return TokenBroker({}, connections=config, secret_key=SECRET, http=world.http, clock=world.clock)


async def show_token(request: Request) -> Response:
    """Return the value of the token."""
    return JSONResponse((await request.state.tokens.resolve("crm")).value)


async def show_injected(request: Request) -> Response:
    """Return the value of the injected token."""
    return JSONResponse(request.state.tokens["crm"].value)


def client_of(application: Any) -> httpx.AsyncClient:
    """Return a client of an application."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="https://app.example")


@pytest.mark.parametrize("subject", [signed_in, signed_in_later])
@pytest.mark.parametrize("handler", [show_token, show_injected])
async def test_a_request_has_the_token_of_its_user(world: World, subject: Any, handler: Any) -> None:
    """Two users, and a user without a connection, and a request without a user."""
    families = {user: await world.connect(user, user=user) for user in ("ada", "bob")}
    async with broker_of(world, subject) as broker:
        middleware = [Middleware(TokenMiddleware, broker=broker, inject=["crm"])]
        application = add_problem_handlers(Starlette(routes=[Route("/", handler)], middleware=middleware))
        async with client_of(application) as client:
            for user, family in families.items():
                assert family.access_tokens[-1] == (await client.get("/", headers={"x-user": user})).json()
            for headers, status in (({"x-user": "eve"}, 403), ({}, 401)):
                response = await client.get("/", headers=headers)
                assert status == response.status_code
                assert "application/problem+json" == response.headers["content-type"]
                assert "/settings/connect/crm" == response.json()["connect_url"]
                assert "eve" not in response.text
                assert ("www-authenticate" in response.headers) == (status == 401)


async def test_fastapi_answers_with_the_connect_url(world: World) -> None:
    """`add_problem_handlers` gives routes of FastAPI the same response."""
    family = await world.connect("ada")
    async with broker_of(world, signed_in) as broker:
        application = add_problem_handlers(FastAPI())
        application.add_middleware(TokenMiddleware, broker=broker)

        @application.get("/")
        async def show(crm: Annotated[Token, Depends(provider_token("crm"))]) -> str:
            return crm.value

        async with client_of(application) as client:
            assert family.access_tokens[-1] == (await client.get("/", headers={"x-user": "ada"})).json()
            response = await client.get("/", headers={"x-user": "eve"})
            assert (403, "/settings/connect/crm") == (response.status_code, response.json()["connect_url"])


async def test_an_auth_object_replaces_a_rejected_token(world: World) -> None:
    """The API rejects the user's token: it is refreshed once, and the request repeated."""
    family = await world.connect("ada")

    async def call_api(request: Request) -> Response:
        auth = request.state.tokens.auth("crm")
        response = await world.http.get("https://idp.example/api/contacts", auth=auth)
        return JSONResponse(response.status_code)

    async with broker_of(world, signed_in) as broker:
        middleware = [Middleware(TokenMiddleware, broker=broker)]
        async with client_of(Starlette(routes=[Route("/", call_api)], middleware=middleware)) as client:
            assert 200 == (await client.get("/", headers={"x-user": "ada"})).json()
            world.server.revoke(family.access_tokens[0])
            world.clock.advance(10)
            assert 200 == (await client.get("/", headers={"x-user": "ada"})).json()
    assert (1, True) == (family.refreshes, family.alive)


async def test_a_stranger_costs_one_read_a_second(world: World) -> None:
    """Requests of a user without a connection do not read the store each time."""
    async with broker_of(world, signed_in) as broker:
        store = world.store
        assert isinstance(store, MemoryStore)
        middleware = [Middleware(TokenMiddleware, broker=broker)]
        async with client_of(Starlette(routes=[Route("/", show_token)], middleware=middleware)) as client:
            before = store.calls["load"]
            for _ in range(10):
                assert 403 == (await client.get("/", headers={"x-user": "eve"})).status_code
    assert 1 == store.calls["load"] - before
