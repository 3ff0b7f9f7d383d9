"""Tokens from Authlib's server: client credentials with each method, and the JWT bearer grant (RFC 7523)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest

from tests.interop.running import python, running
from tests.providers.private_keys import jwk_of, make_key, public_jwk_of, started
from tokenmw import CredentialRejected, TokenBroker
from tokenmw.errors import SubjectRefused
from tokenmw.providers import ClientCredentials, JWTBearer, PrivateKeyJWT, Provider

if TYPE_CHECKING:
    from collections.abc import Generator

    from tokenmw.values import Token

pytestmark = pytest.mark.sdk

SECRET = "a secret:with/special+characters%3D&as=well"
SCOPE = "orders.read orders.write"
KEYS = {"ES256": "P-256", "RS256": "RSA-2048"}
SECRETS = {"basic": "client_secret_basic", "post": "client_secret_post", "secret-jwt": "client_secret_jwt"}


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    """The URL of a server with a client for each method."""
    clients: dict[str, dict[str, Any]] = {
        client: {"method": method, "secret": SECRET, "scope": SCOPE} for client, method in SECRETS.items()
    }
    clients |= {
        algorithm: {"method": "private_key_jwt", "jwk": public_jwk_of(make_key(sort)), "scope": SCOPE}
        for algorithm, sort in KEYS.items()
    }
    command = python("authlib_server.py", modules=["authlib", "flask", "joserfc"])
    with running(command, clients=clients, users=["ada"]) as url:
        yield url


@pytest.fixture(params=[*SECRETS, *KEYS])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of one of the clients. A key is read here, outside of an event loop."""
    client: Any = request.param
    if client in KEYS:
        key = PrivateKeyJWT(jwk_of(make_key(KEYS[client])), key_id="new", algorithm=client)
        return {"client_id": client, "client_assertion": key}
    return {"client_id": client, "client_secret": SECRET, "auth_method": SECRETS[client]}


async def fetched(provider: Provider) -> Token:
    """Return a token, fetched by a broker."""
    async with TokenBroker({"crm": provider}) as broker:
        return await broker.token("crm")


async def known(server: str, token: Token) -> dict[str, Any]:
    """Return what the server knows about a token."""
    async with httpx.AsyncClient(trust_env=False) as http:
        fields: dict[str, Any] = (await http.get(f"{server}/known/{token.value}")).json()
    return fields


async def test_each_method_gets_a_token(server: str, options: dict[str, Any]) -> None:
    """The token belongs to the client, and has the scope and the lifetime that the server gave it."""
    token = await fetched(ClientCredentials(token_url=f"{server}/token", scope="orders.read", **options))
    assert {"client": options["client_id"], "user": "", "scope": "orders.read"} == await known(server, token)
    assert 1190 < token.expires_at - time.time() <= 1200


async def test_an_unencoded_secret_is_refused(server: str) -> None:
    """Authlib decodes percent signs in Basic credentials; the error names the option that encodes them."""
    crm = ClientCredentials(
        token_url=f"{server}/token", client_id="basic", client_secret=SECRET, form_encode_basic=False
    )
    with pytest.raises(CredentialRejected, match=r"\(invalid_client, HTTP 401\).* leave form_encode_basic=True"):
        await fetched(crm)


@pytest.mark.parametrize("client", SECRETS)
async def test_a_wrong_secret_is_refused(server: str, client: str) -> None:
    """The error names the client, and not the secret."""
    wrong = "another secret of sufficient length: 0123456789"
    crm = ClientCredentials(
        token_url=f"{server}/token",
        client_id=client,
        client_secret=wrong,
        auth_method=SECRETS[client],  # type: ignore[arg-type]
    )
    with pytest.raises(CredentialRejected, match=f"refuses client_id={client} .*check client_id, client_secret") as it:
        await fetched(crm)
    assert wrong not in str(it.value)


async def test_a_foreign_scope_is_refused(server: str) -> None:
    """The error has the server's code, and the option."""
    crm = ClientCredentials(
        token_url=f"{server}/token",
        client_id="post",
        client_secret=SECRET,
        auth_method="client_secret_post",
        scope="bills.read",
    )
    with pytest.raises(CredentialRejected, match=r"\(invalid_scope, HTTP 400\): check scope"):
        await fetched(crm)


def assertion(server: str, *, seconds: float = 60, subject: str = "ada", number: int = 1) -> str:
    """Return an assertion of the client `ES256` for a user."""
    claims = {"iss": "ES256", "sub": subject, "aud": f"{server}/token", "exp": int(time.time() + seconds)}
    return jwt.encode(claims, make_key("P-256", number=number), algorithm="ES256")


async def test_an_assertion_is_exchanged_for_a_token(server: str) -> None:
    """A service account needs no client authentication; the token is the user's."""
    robot = JWTBearer(token_url=f"{server}/token", assertion=lambda: assertion(server), scope="orders.write")
    token = await fetched(robot)
    assert {"client": "ES256", "user": "ada", "scope": "orders.write"} == await known(server, token)
    assert 690 < token.expires_at - time.time() <= 700


async def test_an_assertion_is_signed_here(server: str) -> None:
    """With a key and claims in place of a function."""
    key = await started(jwk_of(make_key("P-256")))
    claims = {"iss": "ES256", "sub": "ada"}
    token = await fetched(JWTBearer(token_url=f"{server}/token", assertion=key, claims=claims, scope="orders.read"))
    assert {"client": "ES256", "user": "ada", "scope": "orders.read"} == await known(server, token)
    with pytest.raises(CredentialRejected, match=r"invalid_grant, HTTP 400\): check claims \(iss, sub, aud\)"):
        await fetched(JWTBearer(token_url=f"{server}/token", assertion=key, claims={**claims, "aud": "https://other"}))


async def test_a_callers_assertion_caps_its_token(server: str) -> None:
    """The server's token lives 700 s; it is used only as long as the caller's."""
    token = await fetched(JWTBearer(token_url=f"{server}/token", subject=assertion(server, seconds=300)))
    assert 290 < token.expires_at - time.time() <= 300


@pytest.mark.parametrize("wrong", [{"subject": "bob"}, {"number": 2}, {"seconds": -3600}])
async def test_a_refused_assertion_is_an_invalid_grant(server: str, wrong: dict[str, Any]) -> None:
    """An unknown user, a key that the server does not know, and an expired assertion are the credential's fault."""
    robot = JWTBearer(token_url=f"{server}/token", assertion=lambda: assertion(server, **wrong))
    with pytest.raises(CredentialRejected, match=r"invalid_grant, HTTP 400\): check key, iss, sub, aud and exp"):
        await fetched(robot)


@pytest.mark.parametrize("wrong", [{"subject": "bob"}, {"number": 2}])
async def test_a_refused_caller_is_not_the_services_fault(server: str, wrong: dict[str, Any]) -> None:
    """The error is the caller's 401, and not a rejected credential of this service."""
    with pytest.raises(SubjectRefused):
        await fetched(JWTBearer(token_url=f"{server}/token", subject=assertion(server, **wrong)))
