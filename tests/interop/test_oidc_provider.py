"""Tokens from `oidc-provider`, a certified server for Node.js, with each method of client authentication."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.interop.running import node, running
from tests.providers.private_keys import jwk_of, make_key, public_jwk_of
from tokenmw import CredentialRejected, TokenBroker, TokenUnavailable
from tokenmw.providers import ClientCredentials, PrivateKeyJWT

if TYPE_CHECKING:
    from collections.abc import Generator

    from tokenmw.values import Token

pytestmark = pytest.mark.sdk

ORDERS, BILLS = "https://orders.example/api", "https://bills.example/api"
RESOURCES = {ORDERS: "orders.read orders.write", BILLS: "bills.read"}
SECRET = "a secret:with/special+characters%3D&as=well"
ID = "crm:basic/one+two"
KEYS = {"ES256": "P-256", "RS256": "RSA-2048", "PS256": "RSA-2048"}


def key_of(algorithm: str) -> dict[str, Any]:
    """Return the private key of the client that signs with an algorithm, as a JWK."""
    return jwk_of(make_key(KEYS[algorithm]))


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    """The issuer of a server with a client for each method."""
    secrets = {ID: "client_secret_basic", "post": "client_secret_post", "secret-jwt": "client_secret_jwt"}
    scope = RESOURCES[ORDERS]
    clients: list[dict[str, Any]] = [
        {"client_id": client, "client_secret": SECRET, "token_endpoint_auth_method": method, "scope": scope}
        for client, method in secrets.items()
    ]
    clients += [
        {
            "client_id": algorithm,
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": algorithm,
            "jwks": {"keys": [{**public_jwk_of(make_key(sort)), "kid": "new"}]},
            "scope": scope,
        }
        for algorithm, sort in KEYS.items()
    ]
    with running(node("oidc_provider.mjs"), clients=clients, resources=RESOURCES) as issuer:
        yield issuer


async def fetched(provider: ClientCredentials) -> Token:
    """Return a token, fetched by a broker."""
    async with TokenBroker({"crm": provider}) as broker:
        return await broker.token("crm")


async def introspected(issuer: str, token: Token) -> dict[str, Any]:
    """Return what the server knows about a token."""
    form = {"token": token.value, "client_id": "post", "client_secret": SECRET}
    async with httpx.AsyncClient(trust_env=False) as http:
        fields: dict[str, Any] = (await http.post(f"{issuer}/token/introspection", data=form)).json()
    return fields


METHODS = {
    "basic": {"client_id": ID, "client_secret": SECRET},
    "post": {"client_id": "post", "client_secret": SECRET, "auth_method": "client_secret_post"},
    "secret-jwt": {"client_id": "secret-jwt", "client_secret": SECRET, "auth_method": "client_secret_jwt"},
    **{algorithm: {"client_id": algorithm} for algorithm in KEYS},
}


def options_of(method: str) -> dict[str, Any]:
    """Return the options of a client; a key is read here, outside of an event loop."""
    options: dict[str, Any] = dict(METHODS[method])
    if method in KEYS:
        options["client_assertion"] = PrivateKeyJWT(key_of(method), key_id="new", algorithm=method)  # type: ignore[arg-type]
    return options


@pytest.fixture(params=METHODS)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of one of the clients."""
    return options_of(request.param)


async def test_each_method_gets_a_token(issuer: str, options: dict[str, Any]) -> None:
    """The token belongs to the client, and has the lifetime, the scope and the resource that the server gave it."""
    crm = ClientCredentials(token_url=f"{issuer}/token", scope="orders.read", resource=ORDERS, **options)
    known = await introspected(issuer, await fetched(crm))
    assert (True, options["client_id"], "orders.read", ORDERS) == (
        known["active"],
        known["client_id"],
        known["scope"],
        known["aud"],
    )
    assert 1200 == known["exp"] - known["iat"]


async def test_each_method_works_by_the_issuer(issuer: str, options: dict[str, Any]) -> None:
    """The endpoint is found, and where no method is set, one that the server publishes is used."""
    token = await fetched(ClientCredentials(issuer=issuer, **options))
    known = await introspected(issuer, token)
    assert known["client_id"] == options["client_id"]
    assert abs(token.expires_at - known["exp"]) < 5


async def test_the_issuer_is_accepted_as_audience(issuer: str) -> None:
    """`assertion_audience` may name the issuer in place of the token endpoint (RFC 7523 §3)."""
    crm = ClientCredentials(
        token_url=f"{issuer}/token",
        client_id="secret-jwt",
        client_secret=SECRET,
        auth_method="client_secret_jwt",
        assertion_audience=issuer,
        assertion_algorithm="HS512",
    )
    assert (await introspected(issuer, await fetched(crm)))["active"]


async def test_two_resources_are_two_credentials(issuer: str) -> None:
    """Each resource has a token of its own, with the resource's scopes."""
    providers = {
        name: ClientCredentials(token_url=f"{issuer}/token", client_id=ID, client_secret=SECRET, resource=url)
        for name, url in (("orders", ORDERS), ("bills", BILLS))
    }
    async with TokenBroker(providers) as broker:
        orders, bills = await broker.token("orders"), await broker.token("bills")
    known = [await introspected(issuer, token) for token in (orders, bills)]
    assert [ORDERS, BILLS] == [one["aud"] for one in known]


async def refusal(provider: ClientCredentials) -> CredentialRejected:
    """Return the error of a refused token request."""
    with pytest.raises(CredentialRejected) as raised:
        await fetched(provider)
    return raised.value


@pytest.mark.parametrize("resource", [[ORDERS, BILLS], "https://unknown.example"])
async def test_a_refused_resource_is_named(issuer: str, resource: str | list[str]) -> None:
    """This server grants one resource at a time; the error has its code, and the option."""
    crm = ClientCredentials(token_url=f"{issuer}/token", client_id=ID, client_secret=SECRET, resource=resource)
    error = await refusal(crm)
    assert "(invalid_target, HTTP 400): check resource and audience" in str(error)


@pytest.mark.parametrize("method", ["basic", "post", "secret-jwt"])
async def test_a_wrong_secret_is_refused(issuer: str, method: str) -> None:
    """The error names the client authentication, and not the secret."""
    wrong = "another secret of sufficient length: 0123456789"
    options: dict[str, Any] = options_of(method) | {"client_secret": wrong}
    crm = ClientCredentials(token_url=f"{issuer}/token", **options)
    error = await refusal(crm)
    assert "invalid_client" in str(error)
    assert "client_secret" in str(error)
    assert wrong not in str(error)


async def test_a_secret_that_is_changed_is_found_in_the_list(issuer: str) -> None:
    """The second secret is tried when the server refuses the first."""
    crm = ClientCredentials(token_url=f"{issuer}/token", client_id=ID, client_secret=["the next secret", SECRET])
    assert (await introspected(issuer, await fetched(crm)))["active"]


@pytest.fixture
def wrong_key() -> PrivateKeyJWT:
    """A key that the server does not know."""
    return PrivateKeyJWT(jwk_of(make_key("P-256", number=2)), key_id="new", algorithm="ES256")


async def test_a_wrong_key_is_refused(issuer: str, wrong_key: PrivateKeyJWT) -> None:
    """The error says what to check."""
    error = await refusal(ClientCredentials(token_url=f"{issuer}/token", client_id="ES256", client_assertion=wrong_key))
    assert "invalid_client" in str(error)
    assert "public key of PrivateKeyJWT" in str(error)


async def test_an_unencoded_secret_is_refused(issuer: str) -> None:
    """This server form-decodes Basic credentials; the error names the option that encodes them."""
    crm = ClientCredentials(
        token_url=f"{issuer}/token", client_id="post", client_secret="100%+", form_encode_basic=False
    )
    error = await refusal(crm)
    assert "form_encode_basic=True" in str(error)


async def test_a_scope_that_the_client_may_not_have_is_refused(issuer: str) -> None:
    """The error has the server's code, and the option."""
    crm = ClientCredentials(
        token_url=f"{issuer}/token", client_id=ID, client_secret=SECRET, scope="bills.read", resource=BILLS
    )
    error = await refusal(crm)
    assert "(invalid_scope, HTTP 400): check scope" in str(error)


async def test_a_missing_endpoint_is_no_refusal_of_the_client(issuer: str) -> None:
    """A wrong path is a wrong `token_url`."""
    crm = ClientCredentials(token_url=f"{issuer}/tokens", client_id=ID, client_secret=SECRET)
    with pytest.raises(TokenUnavailable, match=r"has no token endpoint at /tokens .*check token_url"):
        await fetched(crm)
