"""ProviderServer verifies DPoP proofs, at the token endpoint and at the API (RFC 9449 §4.3)."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from typing import Any

import jwt
import pytest

from tests.providers.private_keys import make_key, public_jwk_of
from tests.testing.conftest import BASE, CRM, FORM
from tokenmw.testing import ProviderServer

ORDERS = "/api/orders"


def ath(token: str) -> str:
    """Return the digest of a token."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


def proof(client: Any, path: str, *, sort: str = "P-256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Make a proof without the package's own code; a claim that is None is left out."""
    key = make_key(sort)
    base = str(client.base_url).rstrip("/")
    usual = {"jti": uuid.uuid4().hex, "htm": "POST", "htu": f"{base}{path}", "iat": int(time.time())}
    given = {name: value for name, value in (usual | claims).items() if value is not None}
    headers = {"typ": "dpop+jwt", "jwk": public_jwk_of(key)} | (header or {})
    return jwt.encode(given, key, algorithm={"P": "ES256", "E": "EdDSA", "R": "RS256"}[sort[0]], headers=headers)


async def requested(client: Any, *proofs: str) -> Any:
    """Request a token with proofs, and return the answer."""
    return await client.post("/oauth2/token", data=FORM | CRM, headers=[("DPoP", one) for one in proofs])


async def called(client: Any, token: str, *proofs: str, scheme: str = "DPoP") -> Any:
    """Call the API with a token and proofs, and return the answer."""
    headers = [("Authorization", f"{scheme} {token}"), *(("DPoP", one) for one in proofs)]
    return await client.post(ORDERS, headers=headers)


@pytest.mark.parametrize("sort", ["P-256", "Ed25519", "RSA-2048"])
async def test_a_proven_token_is_bound_and_accepted_with_a_proof(
    server: ProviderServer, client: Any, sort: str
) -> None:
    """The token type is DPoP, and the API accepts the token with a proof of the same key."""
    answer = await requested(client, proof(client, "/oauth2/token", sort=sort))
    assert (200, "DPoP") == (answer.status_code, answer.json()["token_type"])
    value = answer.json()["access_token"]
    assert 200 == (await called(client, value, proof(client, ORDERS, sort=sort, ath=ath(value)))).status_code


@pytest.mark.parametrize(
    "wrong",
    [
        {"htm": "GET"},
        {"htu": f"{BASE}/oauth2/other"},
        {"htu": None},
        {"iat": 0},
        {"iat": None},
        {"iat": int(time.time()) + 3600},
        {"jti": None},
        {"jti": ""},
        {"header": {"typ": "JWT"}},
        {"header": {"jwk": public_jwk_of(make_key("P-256", number=2))}},
        {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        {"header": {"jwk": None}},
    ],
)
async def test_a_wrong_proof_is_refused(client: Any, wrong: dict[str, Any]) -> None:
    """Signature, type, method, URL, time and id are checked."""
    answer = await requested(client, proof(client, "/oauth2/token", **wrong))
    assert (400, "invalid_dpop_proof") == (answer.status_code, answer.json()["error"])


async def test_a_proof_is_accepted_once(client: Any) -> None:
    """The second request with the same proof, two proofs in one request, and text that is no proof are refused."""
    one = proof(client, "/oauth2/token")
    assert [200, 400] == [(await requested(client, one)).status_code for _ in range(2)]
    two = [proof(client, "/oauth2/token") for _ in range(2)]
    assert [400, 400] == [(await requested(client, *proofs)).status_code for proofs in (two, ["a.b.c"])]


async def test_a_proof_may_be_required(server: ProviderServer, client: Any) -> None:
    """Without one, a token is a bearer token, or is refused."""
    assert "Bearer" == (await requested(client)).json()["token_type"]
    server.oauth2.dpop.required = True
    assert "invalid_dpop_proof" == (await requested(client)).json()["error"]


async def test_nonces_change_and_the_newest_ones_are_accepted(server: ProviderServer, client: Any) -> None:
    """Each answer has a new nonce; a proof without one, with an unknown one or with an old one is refused."""
    server.oauth2.dpop.nonces = True
    refused = await requested(client, proof(client, "/oauth2/token"))
    assert (400, "use_dpop_nonce") == (refused.status_code, refused.json()["error"])
    first = refused.headers["dpop-nonce"]
    granted = await requested(client, proof(client, "/oauth2/token", nonce=first))
    assert 200 == granted.status_code
    assert first != granted.headers["dpop-nonce"]
    for _ in range(16):
        await requested(client, proof(client, "/oauth2/token", nonce="unknown"))
    assert 400 == (await requested(client, proof(client, "/oauth2/token", nonce=first))).status_code


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"sort": "Ed25519"}, "invalid_token"),
        ({"ath": ath("another")}, "invalid_dpop_proof"),
        ({"ath": None}, "invalid_dpop_proof"),
        ({"htm": "GET"}, "invalid_dpop_proof"),
        (None, "invalid_dpop_proof"),
    ],
)
async def test_the_api_checks_key_and_token(client: Any, wrong: dict[str, Any] | None, error: str) -> None:
    """A proof of another key or for another token is refused, and so is a request without one."""
    value = (await requested(client, proof(client, "/oauth2/token"))).json()["access_token"]
    claims: dict[str, Any] = {"ath": ath(value)} | (wrong or {})
    proofs = [] if wrong is None else [proof(client, ORDERS, **claims)]
    answer = await called(client, value, *proofs)
    assert (401, error) == (answer.status_code, answer.json()["error"])
    assert answer.headers["www-authenticate"].startswith(f'DPoP realm="api", error="{error}", algs="ES256 ')


async def test_a_bound_token_is_no_bearer_token_nor_the_other_way_round(server: ProviderServer, client: Any) -> None:
    """A bound token is refused without its scheme (RFC 9449 §7.2), and a bearer token with it."""
    bound = (await requested(client, proof(client, "/oauth2/token"))).json()["access_token"]
    bearer = (await requested(client)).json()["access_token"]
    assert 401 == (await called(client, bound, scheme="Bearer")).status_code
    assert 401 == (await called(client, bearer, proof(client, ORDERS, ath=ath(bearer)))).status_code
    assert 200 == (await called(client, bearer, scheme="Bearer")).status_code
    server.api.dpop.required = True
    assert 401 == (await called(client, bearer, scheme="Bearer")).status_code
    assert "DPoP" in (await client.post(ORDERS)).headers["www-authenticate"]


async def test_the_same_token_is_returned_for_the_same_key(server: ProviderServer, client: Any) -> None:
    """With `renewal_window`, a token is repeated for the key that it is bound to, and for no other."""
    server.oauth2.renewal_window = 0
    sorts = ("P-256", "P-256", "Ed25519")
    values = [
        (await requested(client, proof(client, "/oauth2/token", sort=one))).json()["access_token"] for one in sorts
    ]
    assert values[0] == values[1] != values[2]
