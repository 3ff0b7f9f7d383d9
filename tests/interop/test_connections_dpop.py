"""Users connect accounts at `oidc-provider` with codes and tokens that are bound to a key (RFC 9449), and nonces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.connections.memory_store import MemoryStore
from tests.interop.oidc_browser import Browser
from tests.interop.running import node, running
from tests.providers.private_keys import make_key, pem_of
from tokenmw import TokenBroker
from tokenmw.connections import ConnectApp, Connections, OAuthApp
from tokenmw.providers import DPoPKey

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.requests import HTTPConnection

pytestmark = pytest.mark.sdk

SITE = "http://localhost:8000"
SECRET = "a secret of sufficient length: 0123456789"
KEY = DPoPKey(pem_of(make_key("P-256")))


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    """The issuer of a server with a confidential client and a public one; both must bind their tokens."""
    clients: list[dict[str, Any]] = [
        {
            "client_id": name,
            "redirect_uris": [f"{SITE}/connect/{name}/callback"],
            "application_type": "native",  # loopback redirect URIs
            "dpop_bound_access_tokens": True,
            **(
                {"client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic"}
                if name == "confidential"
                else {"token_endpoint_auth_method": "none"}
            ),
        }
        for name in ("confidential", "public")
    ]
    with running(node("oidc_users.mjs"), clients=clients, dpop=True) as issuer:
        yield issuer


def user_of(connection: HTTPConnection) -> str | None:
    """Return the user that a header names."""
    return connection.headers.get("x-user")


@pytest.mark.parametrize("name", ["confidential", "public"])
async def test_bound_tokens_are_refreshed_and_revoked(issuer: str, name: str) -> None:
    """Of a public client, the refresh token is bound too; each refresh needs a proof of the same key."""
    client: dict[str, Any] = {"client_secret": SECRET} if name == "confidential" else {"auth_method": "none"}
    scope, params = "openid offline_access read", {"prompt": "consent"}
    app = OAuthApp(issuer=issuer, client_id=name, scope=scope, params=params, dpop=KEY, **client)
    broker = TokenBroker(
        {},
        connections=Connections({name: app}, store=MemoryStore(), subject=user_of),
        secret_key="k7Qm-secret-of-the-sealer-91",
    )
    program = Starlette(routes=[Mount("/connect", ConnectApp(broker, allow=lambda _: True, return_to=("/settings",)))])
    async with broker, Browser(program, site=SITE, user="ada") as browser:
        answer = await browser.go(f"/connect/{name}")
        assert (303, "/settings") == (answer.status_code, answer.headers["location"]), answer.text
        users = broker.connections
        seen = set[str]()
        for _ in range(5):
            token = await users.token(name, "ada")
            assert "DPoP" == token.token_type
            seen.add(token.value)
            assert KEY.thumbprint == (await introspected(issuer, token.value, client=name))["cnf"]["jkt"]
            await broker._open().token_sync.invalidate_current(users._opened().entry(users._provider(name, "ada")))
        assert 5 == len(seen)
        token = await users.token(name, "ada")
        assert await users.disconnect(name, "ada")
        assert not (await introspected(issuer, token.value, client=name))["active"]


async def introspected(issuer: str, token: str, *, client: str) -> dict[str, Any]:
    """Return what the server knows about a token."""
    auth: Any = (client, SECRET.replace(" ", "%20").replace(":", "%3A")) if client == "confidential" else None
    form = {"token": token, **({} if auth else {"client_id": client})}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{issuer}/token/introspection", data=form, auth=auth)
    fields: dict[str, Any] = answer.json()
    return fields
