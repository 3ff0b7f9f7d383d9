"""DPoP tokens of `oidc-provider`, with nonces, at an API whose tokens and proofs `oauth4webapi` validates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest

from tests.interop.running import node, running
from tests.providers.private_keys import jwk_of, make_key, pem_of, public_jwk_of
from tokenmw import CredentialRejected, TokenBroker
from tokenmw.providers import ClientCredentials, DPoPKey, PrivateKeyJWT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

pytestmark = pytest.mark.sdk

ORDERS = "https://orders.example/api"
SECRET = "a secret of sufficient length: 0123456789"
METHODS = ("client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt")


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    """The issuer of a server that wants nonces, with a client for each method; their tokens must be bound."""
    clients: list[dict[str, Any]] = [
        {
            "client_id": method,
            "token_endpoint_auth_method": method,
            "scope": "orders.read",
            "dpop_bound_access_tokens": True,
        }
        | (
            {"jwks": {"keys": [public_jwk_of(make_key("P-256"))]}, "token_endpoint_auth_signing_alg": "ES256"}
            if method == "private_key_jwt"
            else {"client_secret": SECRET}
        )
        for method in METHODS
    ]
    with running(node("oidc_provider.mjs"), clients=clients, resources={ORDERS: "orders.read"}, dpop=True) as issuer:
        yield issuer


def crm(issuer: str, method: str, **options: Any) -> ClientCredentials:
    """Make the credential of a client with a key."""
    proven: dict[str, Any] = {"client_secret": SECRET, "auth_method": method}
    if method == "private_key_jwt":
        proven = {"client_assertion": PrivateKeyJWT(jwk_of(make_key("P-256")))}
    return ClientCredentials(
        token_url=f"{issuer}/token", client_id=method, scope="orders.read", resource=ORDERS, **(proven | options)
    )


@pytest.fixture
async def broker() -> AsyncGenerator[TokenBroker]:
    """A broker without named providers."""
    async with TokenBroker({}) as broker:
        yield broker


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sort", ["P-256", "Ed25519"])
async def test_a_bound_token_is_accepted_with_its_proofs(
    issuer: str, broker: TokenBroker, method: str, sort: str
) -> None:
    """The server binds the token to the key, and the API accepts it for requests of each method and with each nonce."""
    provider = crm(issuer, method, dpop=DPoPKey(pem_of(make_key(sort))))
    token = await broker.token(provider)
    assert "DPoP" == token.token_type
    claims = jwt.decode(token.value, options={"verify_signature": False})
    assert provider.dpop is not None
    assert (method, {"jkt": provider.dpop.thumbprint}) == (claims["client_id"], claims["cnf"])
    async with httpx.AsyncClient(base_url=issuer, auth=broker.auth(provider), trust_env=False) as http:
        for number in range(7):
            answer = await http.request(("GET", "POST")[number % 2], f"/api/orders/{number}?expand=lines")
            assert 200 == answer.status_code, answer.text
            assert [401] * len(answer.history) == [one.status_code for one in answer.history]
            assert f"/api/orders/{number}?expand=lines" == answer.json()["url"]
    assert token.value == (await broker.token(provider)).value


async def test_the_token_is_of_no_use_without_the_key(issuer: str, broker: TokenBroker) -> None:
    """The API refuses a request without a proof, and one with the proof of another key."""
    token = await broker.token(crm(issuer, METHODS[0], dpop=DPoPKey()))
    thief = ClientCredentials(token_url=f"{issuer}/token", client_id="x", client_secret="y", dpop=DPoPKey())
    assert thief.dpop is not None
    async with httpx.AsyncClient(trust_env=False) as http:
        assert 401 == (await http.get(f"{issuer}/api/x", headers={"Authorization": token.authorization})).status_code
        challenges: list[str] = []
        for _ in range(2):
            headers = {
                "Authorization": token.authorization,
                "DPoP": thief.dpop.proof("GET", f"{issuer}/api/x", token=token),
            }
            answer = await http.get(f"{issuer}/api/x", headers=headers)
            thief.dpop.take_nonce(answer.url, answer.headers, of_api=True)
            assert 401 == answer.status_code
            challenges.append(answer.headers["www-authenticate"])
    assert ["use_dpop_nonce", "invalid_token"] == [one.split('"')[1] for one in challenges]


async def test_a_client_that_must_bind_its_tokens_needs_the_option(issuer: str, broker: TokenBroker) -> None:
    """The refusal of a request without a proof is the server's."""
    with pytest.raises(CredentialRejected, match="HTTP 400"):
        await broker.token(crm(issuer, METHODS[0]))


async def test_the_endpoint_is_found_by_the_issuer(issuer: str, broker: TokenBroker) -> None:
    """The proof is for the endpoint that the server publishes."""
    provider = ClientCredentials(
        issuer=issuer, client_id=METHODS[0], client_secret=SECRET, resource=ORDERS, dpop=DPoPKey()
    )
    assert "DPoP" == (await broker.token(provider)).token_type
