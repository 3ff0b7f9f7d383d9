"""Assertions that are signed with the client's secret (RFC 7523 §2.2)."""

from __future__ import annotations

from typing import Any, get_args

import jwt
import pytest

from tests.providers.verifying import verifying
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import CredentialRejected
from tokenmw.providers import ClientCredentials
from tokenmw.providers.client_auth import ClientAuth
from tokenmw.providers.jwt_assertion import SecretAlgorithm, client_claims, signed_with_secret

SECRET = "a client secret of many characters, ä & 密, as an identity provider makes it" * 2


def credentials(url: str, **options: Any) -> ClientCredentials:
    """Make the credential of the client `crm`."""
    given: dict[str, Any] = {"client_id": "crm", "client_secret": SECRET, "auth_method": "client_secret_jwt"}
    return ClientCredentials(token_url=url, **(given | options))


@pytest.mark.parametrize("algorithm", [None, *get_args(SecretAlgorithm)])
async def test_a_server_verifies_the_assertion(algorithm: str | None) -> None:
    """Each request has an assertion of its own for the token endpoint, which the server's library accepts."""
    async with verifying(SECRET, algorithms=[algorithm or "HS256"]) as (server, http):
        crm = credentials(server.url, assertion_algorithm=algorithm, scope="a")
        assert (await crm.fetch(http)).value != (await crm.fetch(http)).value
        (header, claims), (_, others) = server.seen
    assert {"alg": algorithm or "HS256", "typ": "JWT"} == header
    assert ("crm", "crm", server.url) == (claims["iss"], claims["sub"], claims["aud"])
    assert claims["jti"] != others["jti"]
    assert 70 == claims["exp"] - claims["iat"]
    assert abs(SYSTEM_CLOCK.time() - 10 - claims["iat"]) < 5


async def test_a_server_may_want_another_audience() -> None:
    """`assertion_audience` replaces the token endpoint, for servers that want their issuer."""
    async with verifying(SECRET, algorithms=["HS256"]) as (server, http):
        server.audience = "https://idp.example"
        with pytest.raises(CredentialRejected, match="check client_id, client_secret, assertion_algorithm, assertion_"):
            await credentials(server.url).fetch(http)
        await credentials(server.url, assertion_audience="https://idp.example").fetch(http)


async def test_while_the_secret_is_changed_the_other_one_is_tried() -> None:
    """With two secrets the refusal of one costs a request, as with the other methods."""
    async with verifying(SECRET, algorithms=["HS256"]) as (server, http):
        crm = credentials(server.url, client_secret=["the new secret, which the server does not know yet", SECRET])
        await crm.fetch(http)
        await crm.fetch(http)
    assert (3, 2) == (server.server.calls["verified"], len(server.seen))


async def test_neither_the_secret_nor_the_assertion_is_shown() -> None:
    """A server that repeats the assertion does not get it into an error text."""
    crm = credentials("https://idp.example/token")
    auth = crm._client.auth
    assert isinstance(auth, ClientAuth)
    proof = await auth.prove(token_url=crm.token_url)
    assertion = proof.form["client_assertion"]
    assert proof.is_in(f"no {assertion}!")
    assert proof.is_in(SECRET)
    assert "client_secret" not in proof.form
    assert "<ClientCredentials> <ClientAuth client_secret_jwt> <Proof>" == f"{crm!r} {auth!r} {proof!r}"


@pytest.mark.parametrize(
    "options",
    [
        {"assertion_audience": "https://idp.example"},
        {"assertion_algorithm": "HS512"},
        {"auth_method": "client_secret_post"},
    ],
)
def test_an_option_of_the_assertion_is_part_of_the_credential(options: dict[str, Any]) -> None:
    """A credential that the server refuses must not hold up the one with the right option."""
    url = "https://idp.example/token"
    assert credentials(url) != credentials(url, **options) == credentials(url, **options)
    assert ("oauth2", url, "crm", "client_secret_jwt", SECRET, None, None, (), None, None) == credentials(
        url
    ).credential


def test_claims_are_encoded_as_the_library_does() -> None:
    """The JWT is the one that PyJWT makes of the same claims."""
    claims = client_claims("crm ä", audience="https://idp.example/token")
    ours = signed_with_secret(claims, SECRET, algorithm="HS384")
    assert claims == jwt.decode(ours, SECRET, algorithms=["HS384"], audience=claims["aud"])
