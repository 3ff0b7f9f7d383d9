"""Tokens from django-oauth-toolkit: client credentials with a secret, resources, and the endpoint by the issuer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.interop.running import python, running
from tokenmw import CredentialRejected, TokenBroker, TokenUnavailable
from tokenmw.providers import ClientCredentials

if TYPE_CHECKING:
    from collections.abc import Generator

    from tokenmw.values import Token

pytestmark = pytest.mark.sdk

CLIENT, SECRET = "crm one", "a secret:with/special+characters%3D&as=well"
RESOURCES = ["https://orders.example/api", "https://bills.example/api"]


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    """The issuer of a server with one client."""
    command = python("django_server.py", modules=["oauth2_provider"])
    with running(command, client=CLIENT, secret=SECRET, scopes=["orders.read", "introspection"]) as issuer:
        yield issuer


def client(server: str, /, **options: Any) -> ClientCredentials:
    """Make the client, with more options."""
    given: dict[str, Any] = {"token_url": f"{server}/token/", "client_id": CLIENT, "client_secret": SECRET} | options
    return ClientCredentials(**given)


async def fetched(provider: ClientCredentials) -> Token:
    """Return a token, fetched by a broker."""
    async with TokenBroker({"crm": provider}) as broker:
        return await broker.token("crm")


async def introspected(issuer: str, token: Token) -> dict[str, Any]:
    """Return what the server knows about a token; it asks for a token of the caller with a scope of its own."""
    caller = await fetched(client(issuer, scope="introspection"))
    async with httpx.AsyncClient(trust_env=False) as http:
        headers = {"authorization": f"Bearer {caller.value}"}
        fields: dict[str, Any] = (
            await http.post(f"{issuer}/introspect/", data={"token": token.value}, headers=headers)
        ).json()
    return fields


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_each_method_gets_a_token(issuer: str, method: str) -> None:
    """The server form-decodes Basic credentials; the token has the scope and the lifetime that it gave."""
    token = await fetched(client(issuer, auth_method=method, scope="orders.read"))
    known = await introspected(issuer, token)
    assert (True, CLIENT, "orders.read") == (known["active"], known["client_id"], known["scope"])
    assert abs(token.expires_at - known["exp"]) < 5


async def test_a_token_is_for_several_resources(issuer: str) -> None:
    """Each resource is a field of the request, and the token is for all of them."""
    token = await fetched(client(issuer, resource=RESOURCES))
    assert RESOURCES == (await introspected(issuer, token))["aud"]


async def test_the_endpoint_is_found_by_the_issuer(issuer: str) -> None:
    """The issuer has a path, so its metadata are at `/.well-known/oauth-authorization-server/o`."""
    token = await fetched(client(issuer, token_url=None, issuer=issuer))
    assert (await introspected(issuer, token))["active"]


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"client_secret": "wrong"}, r"\(invalid_client, HTTP 401\): check client_id, client_secret"),
        ({"form_encode_basic": False}, r"\(invalid_client, HTTP 401\).* leave form_encode_basic=True"),
        ({"scope": "bills.read"}, r"\(invalid_scope, HTTP 40[01]\): check scope"),
        ({"resource": "urn:no:uri"}, r"\(invalid_target, HTTP 400\): check resource"),
        ({"grant_type": "account_credentials", "params": {"account_id": "1"}}, r"\(unsupported_grant_type, HTTP 400\)"),
    ],
)
async def test_a_refusal_names_the_option(issuer: str, options: dict[str, Any], refusal: str) -> None:
    """The error has the server's code, and what to check."""
    with pytest.raises(CredentialRejected, match=refusal):
        await fetched(client(issuer, **options))


async def test_a_missing_slash_is_a_wrong_url(issuer: str) -> None:
    """Django redirects a URL without its last slash; a token request is never redirected."""
    with pytest.raises(TokenUnavailable, match=r"redirect \(HTTP 301\) to the same server.*token_url"):
        await fetched(client(issuer, token_url=f"{issuer}/token"))
