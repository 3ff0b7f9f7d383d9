"""With the lifespan alone, a caller is checked before anything is looked up for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket
from fastapi.params import Depends as DependsParameter
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient, WebSocketDenialResponse

from tokenmw import Token, TokenBroker, provider_token, request_tokens
from tokenmw.fastapi import SessionID, Tokens, token_from
from tokenmw.providers import Provider, StaticToken

KEY = {"x-api-key": "k-1"}
LOOKED_UP: list[str] = []


async def tenant_of(tenant: str) -> str:
    """Look a tenant up in a database."""
    LOOKED_UP.append(tenant)
    if tenant != "acme":
        raise HTTPException(404, "There is no such tenant.")
    return tenant


async def crm_of(tenant: str) -> Provider:
    """Choose a tenant's credential."""
    return StaticToken(f"{await tenant_of(tenant)}-token")


def crm_of_in_thread(tenant: str) -> Provider:
    """Choose a tenant's credential, in a worker thread."""
    LOOKED_UP.append(tenant)
    if tenant != "acme":
        raise HTTPException(404, "There is no such tenant.")
    return StaticToken("acme-token")


async def crm_of_found(tenant: Annotated[str, Depends(tenant_of)]) -> Provider:
    """Choose a credential for what another dependency has found."""
    return StaticToken(f"{tenant}-token")


class OfTenant:
    """A dependency that is an object."""

    async def __call__(self, tenant: str) -> Provider:
        """Choose a tenant's credential."""
        return await crm_of(tenant)


DEPENDENCIES: list[Callable[..., Any]] = [crm_of, crm_of_in_thread, crm_of_found, OfTenant()]


async def authenticate(_connection: HTTPConnection, key: str) -> str | None:
    """Accept one key."""
    return key if key == "k-1" else None


@pytest.fixture(autouse=True)
def nothing_looked_up() -> None:
    """Forget the lookups of other tests."""
    LOOKED_UP.clear()


@pytest.fixture
def broker() -> TokenBroker:
    """Return a broker that checks callers, with a provider whose credential depends on the request."""

    async def of_connection(connection: HTTPConnection) -> Provider:
        return await crm_of(connection.path_params["tenant"])

    return TokenBroker({"crm": of_connection}, authenticate=authenticate, missing_key="reject")


def application(broker: TokenBroker, dependency: Callable[..., Any], **options: Any) -> FastAPI:
    """Make an application without the middleware, whose routes use a token that a dependency chooses."""
    api = FastAPI(lifespan=broker.lifespan, **options)
    chosen = Annotated[Token, Depends(dependency)]

    async def below(token: Any) -> str:
        return str(token.value)

    async def route(token: Any) -> str:
        return str(token.value)

    async def nested(value: str = Depends(below)) -> str:
        return value

    async def socket(websocket: WebSocket, token: Any) -> None:
        await websocket.accept()
        await websocket.send_json(token.value)

    for function in (below, route, nested, socket):
        # Annotations of a closure are texts that FastAPI cannot resolve.
        function.__annotations__ = {
            name: chosen if name == "token" else WebSocket if name == "websocket" else str
            for name in function.__annotations__
        }
    api.get("/{tenant}")(route)
    api.get("/{tenant}/nested")(nested)
    api.websocket("/{tenant}/ws")(socket)
    return api


def statuses(api: FastAPI, headers: dict[str, str]) -> list[int]:
    """Return the statuses of a tenant that exists and of one that does not, in each kind of route."""
    found: list[int] = []
    with TestClient(api, headers=headers) as client:
        for tenant in ("acme", "nobody"):
            found += [client.get(f"/{tenant}").status_code, client.get(f"/{tenant}/nested").status_code]
            try:
                with client.websocket_connect(f"/{tenant}/ws") as websocket:
                    assert "acme-token" == websocket.receive_json()
                    found.append(200)
            except WebSocketDenialResponse as denial:
                found.append(denial.status_code)
    return found


@pytest.mark.parametrize("dependency", DEPENDENCIES)
@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}])
def test_token_from_checks_the_caller_before_the_lookup(
    broker: TokenBroker, dependency: Callable[..., Any], headers: dict[str, str]
) -> None:
    """A caller without a key does not find out which tenants exist, and causes no lookup."""
    api = application(broker, token_from(dependency))
    assert [401] * 6 == statuses(api, headers)
    assert not LOOKED_UP
    assert [200] * 3 + [404] * 3 == statuses(api, KEY)


def test_a_callable_provider_is_called_after_the_check(broker: TokenBroker) -> None:
    """`provider_token` of a name whose credential depends on the request."""
    api = application(broker, provider_token("crm"))
    assert [401] * 6 == statuses(api, {})
    assert not LOOKED_UP
    assert [200] * 3 + [404] * 3 == statuses(api, KEY)


@pytest.mark.parametrize("override", [crm_of, request_tokens])
def test_an_override_does_not_leave_the_check_out(broker: TokenBroker, override: Callable[..., Any]) -> None:
    """A test that replaces the lookup, or `request_tokens` for the routes, still needs a key."""
    api = application(broker, token_from(crm_of))
    api.dependency_overrides[override] = lambda: StaticToken("acme-token")
    assert [401] * 6 == statuses(api, {})
    assert [200] * 3 == statuses(api, KEY)[:3]
    # Unless it replaces the whole dependency.
    api.dependency_overrides = {token_from(crm_of): lambda: StaticToken}
    assert 500 == TestClient(api, raise_server_exceptions=False).get("/acme").status_code


def test_a_dependency_of_the_application_is_checked_before_all_lookups(broker: TokenBroker) -> None:
    """A lookup that a route declares before a token runs before it; `dependencies=[…]` run before both."""
    api = FastAPI(lifespan=broker.lifespan, dependencies=[Depends(request_tokens)])

    async def route(tenant: Annotated[str, Depends(tenant_of)], tokens: Tokens, session: SessionID) -> str:
        return tenant

    api.get("/{tenant}")(route)
    with TestClient(api) as client:
        assert [401, 401] == [client.get(path).status_code for path in ("/acme", "/nobody")]
        assert not LOOKED_UP
        assert 200 == client.get("/acme", headers=KEY).status_code


def test_the_check_is_one_dependency_for_all_tokens() -> None:
    """FastAPI calls it once in a request, so `authenticate` is called once."""
    called: list[str] = []

    def authenticate(_connection: HTTPConnection, key: str) -> str:
        called.append(key)
        return key

    broker = TokenBroker({}, authenticate=authenticate, missing_key="reject")
    api = FastAPI(lifespan=broker.lifespan)

    async def route(
        one: Annotated[Token, Depends(token_from(crm_of))],
        two: Annotated[Token, Depends(token_from(crm_of_in_thread))],
        tokens: Tokens,
    ) -> bool:
        return one.value == two.value

    api.get("/{tenant}")(route)
    with TestClient(api, headers=KEY) as client:
        assert client.get("/acme").json()
    assert ["k-1"] == called


def test_the_check_comes_first_in_the_signature() -> None:
    """FastAPI resolves dependencies in the order of the parameters."""
    defaults = [one.default for one in inspect.signature(token_from(crm_of)).parameters.values()]
    dependencies = [one.dependency for one in defaults if isinstance(one, DependsParameter)]
    assert crm_of == dependencies[-1]
    assert 2 == len(dependencies)
