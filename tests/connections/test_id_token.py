"""ID tokens: each claim that ties a code to its flow is compared."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.connections.flow_problem import FlowProblem
from tokenmw.connections.id_token import checked_claims

NOW = 1_000_000.0
ISSUER = "https://idp.example"
GOOD = {"iss": ISSUER, "aud": "crm", "sub": "ada", "nonce": "n-1", "exp": NOW + 300, "iat": NOW}
TENANT = "https://login.microsoftonline.com/{tid}/v2.0"


def token_of(claims: Any, *, header: Any = None) -> str:
    """Return a token with claims; the signature is not verified, because it came from the token endpoint over TLS."""
    parts = [{"alg": "RS256"} if header is None else header, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def check(token: str | None, *, issuer: str = ISSUER) -> Any:
    """Check a token as the flow does."""
    return checked_claims(token, issuer=issuer, client_id="crm", nonce="n-1", now=NOW)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": ["crm"]},
        {"aud": ["api", "crm"], "azp": "crm"},
        {"azp": "crm"},
        {"exp": NOW - 30},
        {"exp": 10**400},
    ],
)
def test_good_tokens(claims: Any) -> None:
    """The audience may be a list, and clocks may differ by a minute."""
    assert "ada" == check(token_of(GOOD | claims))["sub"]


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": ISSUER + "/"}, "iss"),
        ({"iss": None}, "iss"),
        ({"iss": "\ud800"}, "iss"),
        ({"aud": "other"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": ["api", "crm"]}, "azp"),
        ({"azp": "other"}, "azp"),
        ({"nonce": "n-2"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": ["n-1"]}, "nonce"),
        ({"exp": NOW - 61}, "expired"),
        ({"exp": "never"}, "expired"),
        ({"exp": True}, "expired"),
        ({"exp": -(10**400)}, "expired"),
        ({"exp": None}, "expired"),
        ({"sub": ""}, "sub"),
        ({"sub": None}, "sub"),
    ],
)
def test_foreign_tokens(claims: Any, word: str) -> None:
    """Each claim alone makes it a foreign one."""
    with pytest.raises(FlowProblem, match=word) as refused:
        check(token_of(GOOD | claims))
    assert "foreign" == refused.value.kind


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "a.b",
        "a.b.c.d",
        "!.!.!",
        token_of([]),
        token_of("text"),
        token_of(GOOD, header={"alg": "none"}),
        token_of(GOOD, header={"alg": "NONE"}),
        token_of(GOOD, header={}),
        token_of(GOOD, header=[]),
        "[" * 10_000 + ".b.c",
    ],
)
def test_what_is_no_token(token: str | None) -> None:
    """Missing, unsigned, or no JWT."""
    with pytest.raises(FlowProblem):
        check(token)


def test_the_issuer_of_a_tenant() -> None:
    """Microsoft's has the tenant of the user in it, and nothing else may stand there."""
    good = GOOD | {"iss": "https://login.microsoftonline.com/72f9-1/v2.0", "tid": "72f9-1"}
    assert "ada" == check(token_of(good), issuer=TENANT)["sub"]
    for tid in ("72f9-2", "", None, "a/b", "72f9-1/v2.0/x"):
        with pytest.raises(FlowProblem, match="iss"):
            check(token_of(good | {"tid": tid}), issuer=TENANT)
    assert "ada" == check(token_of(GOOD | {"iss": "https://any.example"}), issuer="")["sub"]


@given(st.text())
def test_any_text_is_refused_or_raises_our_error(text: str) -> None:
    """A server may answer anything."""
    with pytest.raises(FlowProblem):
        check(text)
