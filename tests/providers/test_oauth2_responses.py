from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.answer import Answer
from tokenmw.providers.grant_reader import GrantReader, bearer_rejected
from tokenmw.providers.proof import Proof
from tokenmw.values import MAX_LIFETIME, Grant

SECRET = "s3cr3t"
GOOD: dict[str, Any] = {"access_token": "t-1", "token_type": "Bearer", "expires_in": 3600}
PERMANENT = [
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client"),
    *("unsupported_grant_type", "invalid_scope", "invalid_target"),
]


def reader(**options: Any) -> GrantReader:
    """Make the reader of the client `crm`."""
    defaults: dict[str, Any] = {
        "client": "client_id=crm",
        "client_fix": "check client_id and client_secret",
        "url": "https://idp.example/oauth/token?key=1",
        "default_lifetime": 600.0,
        "scheme_option": "P(scheme=…)",
    }
    return GrantReader(**(defaults | options))


def grant(
    fields: object,
    *,
    status: int = 200,
    retry_after: float | None = None,
    content_type: str = "application/json",
    **options: Any,
) -> Grant:
    """Read a response as `ClientCredentials` does, after the secret was sent."""
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    headers = {"content-type": content_type}
    answer = Answer(status, headers=headers, body=body, retry_after=retry_after, endpoint="idp.example:443")
    return reader(**options).read(answer, Proof(SECRET, form={}, headers={}))


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"expires_in": 7200}, 7200.0),
        ({"expires_in": "7200"}, 7200.0),
        ({"expires_in": 7199.5}, 7199.5),
        ({"expires_in": None}, 600.0),
        ({"expires_in": 10**12}, MAX_LIFETIME),
        ({"expires_in": 0, "expires_on": "4102444800"}, MAX_LIFETIME),
        ({"expires_in": None, "expires_at": "2100-01-01T00:00:00Z"}, MAX_LIFETIME),
    ],
)
def test_lifetime_has_any_json_type(fields: dict[str, Any], seconds: float) -> None:
    """A missing lifetime is the default (RFC 6749 §5.1 only recommends the field)."""
    assert seconds == grant(GOOD | fields).expires_in


def test_options_cap_a_lifetime_and_give_zero_a_meaning() -> None:
    """Adobe sends milliseconds, and some servers send 0 for a token without an expiry."""
    assert 86_400.0 == grant(GOOD | {"expires_in": 86_399_000}, max_lifetime=86_400.0).expires_in
    assert 300.0 == grant(GOOD | {"expires_in": 0}, zero_is_default=True, max_lifetime=300.0).expires_in
    assert 600.0 == grant(GOOD | {"expires_in": 0}, zero_is_default=True).expires_in


@pytest.mark.parametrize("value", [0, -1, "soon", True, math.nan, math.inf, [], {}])
def test_response_with_an_invalid_lifetime_is_refused(value: object) -> None:
    """A lifetime that is not a positive, finite number raises, so an expired or endless token is never cached."""
    with pytest.raises(TokenUnavailable, match="lifetime"):
        grant(GOOD | {"expires_in": value})


@pytest.mark.parametrize(
    ("given_type", "expected"),
    [
        ("bearer", "Bearer"),
        ("BEARER", "Bearer"),
        ("Bearer", "Bearer"),
        (None, "Bearer"),
        ("", "Bearer"),
        ("bearer ", "Bearer"),
        ("BearerToken", "Bearer"),
        ("jwt-bearer", "Bearer"),
        ("Application Access Token", "Bearer"),
        ("JWT", "Bearer"),
        ("urn:ietf:params:oauth:token-type:jwt", "Bearer"),
        ("a\nb", "Bearer"),
        (SECRET, "Bearer"),
    ],
)
def test_token_type_is_written_as_apis_expect_it(given_type: str | None, expected: str) -> None:
    """Many APIs compare the type by case, although it is case-insensitive (RFC 6749 §5.1).

    Apigee, Azure DevOps, eBay and others have their own words for it, and all their APIs expect `Bearer`.
    """
    assert expected == grant(GOOD | {"token_type": given_type}).token_type


ODD_TYPES: list[Any] = [5, 0, False, [], ["Bearer"], {}, "x" * 65, "bearer" + " " * 60 + "MAC"]


@pytest.mark.parametrize(
    ("given_type", "text"),
    [
        *((name, f' "{name}" needs a proof in each request') for name in ("DPoP", "MAC", "pop", "PoP", "mtls_pop")),
        *((name, f' "{name}" is no access token') for name in ("N_A", "n_a")),
        *((odd, " cannot be used as a bearer token") for odd in ODD_TYPES),
    ],
)
def test_token_that_needs_a_proof_is_not_sent_as_a_bearer_token(given_type: object, text: str) -> None:
    """A type that the client does not understand must not be used (RFC 6749 §7.1); an option allows it."""
    with pytest.raises(TokenUnavailable) as caught:
        grant(GOOD | {"token_type": given_type})
    assert f"a token whose token_type{text}" in str(caught.value)
    assert str(caught.value).endswith("set P(scheme=…) to the word before the token")
    assert "JWT" == grant(GOOD | {"token_type": given_type}, scheme="JWT").token_type


@pytest.mark.parametrize(
    "fields",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 5},
        {"access_token": ["t"]},
        {"access_token": "t\r\nx-injected: 1"},
        {"access_token": "t" * 20_000},
    ],
)
def test_malformed_token_is_never_granted(fields: dict[str, Any]) -> None:
    """A token or type that is empty, not text, or unfit for a header raises."""
    with pytest.raises(TokenUnavailable):
        grant(GOOD | fields)


def test_answer_without_a_token_is_never_granted() -> None:
    """A 200 without a token raises."""
    with pytest.raises(TokenUnavailable, match="without access_token: it has none of the usual fields"):
        grant({})


def test_extra_has_the_scalars_that_handlers_need() -> None:
    """Scalars such as `instance_url` are kept; other tokens, structures and oversized fields are not."""
    extra = {"instance_url": "https://na1.example", "scope": "a b", "issued_at": "1", "n": 1, "x": 0.5, "ok": True}
    dropped = {
        "refresh_token": "r",
        "id_token": "i",
        "claims": {"a": 1},
        "list": [1],
        "nothing": None,
        "nan": math.nan,
        "long": "x" * 5000,
    }
    assert extra == dict(grant(GOOD | extra | dropped).extra)
    assert len(grant(GOOD | {f"f{n}": n for n in range(1000)}).extra) <= 32


def test_extra_has_nothing_that_repeats_the_secret() -> None:
    """A field that repeats the secret is dropped, because `extra` may be readable in Redis."""
    repeated = {"client_secret": SECRET, "request": f"client_secret={SECRET}", f"for {SECRET}": True}
    assert {"scope": "a"} == dict(grant(GOOD | repeated | {"scope": "a"}).extra)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 422])
@pytest.mark.parametrize("code", PERMANENT)
def test_permanent_errors_reject_the_credential(code: str, status: int) -> None:
    """The errors of RFC 6749 §5.2 reject the credential, whatever the status."""
    with pytest.raises(CredentialRejected, match=rf"\({code}, HTTP {status}\): \w") as caught:
        grant({"error": code, "error_description": f"you sent {SECRET}"}, status=status)
    assert (code, True) == (caught.value.code, caught.value.said)
    assert SECRET not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("status", [200, 400, 403, 503])
@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error", "slow_down", "internal_failure"])
def test_transient_errors_are_unavailability_with_retry_after(code: str, status: int) -> None:
    """Transient errors do not reject the credential, and keep `Retry-After`."""
    with pytest.raises(TokenUnavailable) as caught:
        grant({"error": code}, status=status, retry_after=9.0)
    assert (True, 9.0) == (caught.value.said, caught.value.retry_after)


@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error", "internal_failure"])
def test_transient_error_in_the_description_is_one(code: str) -> None:
    """Google sends the word in either field; a description that only contains it is prose."""
    with pytest.raises(TokenUnavailable, match="cannot serve client_id=crm now") as caught:
        grant({"error": "invalid_request", "error_description": code}, status=400, retry_after=9.0)
    assert (True, 9.0) == (caught.value.said, caught.value.retry_after)
    with pytest.raises(CredentialRejected):
        grant({"error": "invalid_request", "error_description": f"no {code} here"}, status=400)


@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error"])
def test_401_outweighs_a_transient_error(code: str) -> None:
    """The server refuses the client, whatever it calls that; its next secret may be accepted."""
    with pytest.raises(CredentialRejected, match=rf"\({code}, HTTP 401\): check client_id and client_secret") as caught:
        grant({"error": code}, status=401, retry_after=9.0)
    assert (True, "", 9.0) == (caught.value.said, caught.value.code, caught.value.retry_after)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_busy_status_overrides_the_body(status: int) -> None:
    """A gateway's 503 with `invalid_client` in the body is transient."""
    with pytest.raises(TokenUnavailable, match=f"HTTP {status}") as caught:
        grant({"error": "invalid_client"}, status=status)
    assert caught.value.said


@pytest.mark.parametrize(
    ("status", "body", "said", "text"),
    [
        (400, b"<html>", True, r"\(HTTP 400, application/json\): check token_url and the other options"),
        (401, b"", True, r"\(HTTP 401, application/json\): check client_id and client_secret$"),
        (403, b"<html>blocked", False, r"\(HTTP 403, application/json\): a firewall or a proxy may refuse"),
        (403, b'{"error": "access_denied"}', True, r"refuses client_id=crm \(access_denied, HTTP 403\)"),
        (400, b'{"error": "AADSTS-like.code"}', True, r"refuses client_id=crm \(AADSTS-like.code, HTTP 400\)"),
        (400, b'{"error": {"code": 5}}', True, r"\(HTTP 400, application/json\)"),
        (400, b'{"error": ["invalid_client"]}', True, r"\(HTTP 400, application/json\)"),
        (
            200,
            b'{"error": "bad_verification_code"}',
            True,
            r"refuses .* \(bad_verification_code, HTTP 200\)",
        ),
        (404, b'{"error": "invalid_client"}', True, r"refuses client_id=crm \(invalid_client, HTTP 404\)"),
    ],
)
def test_other_refusals_name_what_to_check(status: int, body: bytes, text: str, *, said: bool) -> None:
    """The text names what to check; a bare 403 may be about this machine only."""
    with pytest.raises(CredentialRejected, match=text) as caught:
        grant(body, status=status, retry_after=9.0)
    assert (said, 9.0) == (caught.value.said, caught.value.retry_after)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (404, "has no token endpoint at /oauth/token (HTTP 404, text/html): check token_url"),
        (405, "takes no POST at /oauth/token (HTTP 405, text/html): check token_url"),
        (406, "takes no token request at /oauth/token (HTTP 406, text/html): check token_url"),
        (410, "no longer has a token endpoint at /oauth/token (HTTP 410, text/html): check token_url"),
        (415, "takes no form at /oauth/token (HTTP 415, text/html): check token_url"),
        (422, "answers as no token endpoint does at /oauth/token (HTTP 422, text/html): check token_url"),
    ],
)
def test_wrong_url_is_no_rejected_credential(status: int, text: str) -> None:
    """The text names the option, host and path, without the query; other instances would get the same answer."""
    with pytest.raises(TokenUnavailable) as caught:
        grant(b"<html>nothing here", status=status, content_type="text/html; charset=utf-8")
    assert f"idp.example:443 {text}" == str(caught.value)
    assert caught.value.said


@pytest.mark.parametrize("path", [f"/{SECRET}", "/a b", "/" + "x" * 300, "/\u00e4", "/\x1b[2J"])
def test_odd_path_is_not_shown(path: str) -> None:
    """A path that may hold the secret, or could forge a log line, is left out."""
    with pytest.raises(TokenUnavailable, match=r"has no token endpoint at this path \(HTTP 404"):
        grant(b"", status=404, url=f"https://idp.example{path}")


@pytest.mark.parametrize("status", [409, 425])
@pytest.mark.parametrize("fields", [{"error": "request_conflict"}, {"error": "invalid_request"}, {}, b"<html>"])
def test_conflict_with_another_request_is_transient(status: int, fields: object) -> None:
    """Hydra answers 409 to two requests at the same time; it is not shared, because it concerns one request."""
    with pytest.raises(TokenUnavailable, match="cannot serve client_id=crm now") as caught:
        grant(fields, status=status, retry_after=9.0)
    assert (False, 9.0) == (caught.value.said, caught.value.retry_after)


def test_answer_without_access_token_names_what_it_has() -> None:
    """Known names are shown, other names and all values are not."""
    with pytest.raises(TokenUnavailable) as caught:
        grant({"token": "t-1", "expires_in": 60, SECRET: SECRET, "x": 1})
    assert "idp.example:443 answered HTTP 200 without access_token: it has token, expires_in" == str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>sign in", b"[]", b'"t-1"', b"access_token=t-1"])
def test_200_without_a_json_object_is_unavailability(body: bytes) -> None:
    """A captive portal's 200 is transient, and is not shared."""
    with pytest.raises(TokenUnavailable, match="JSON object") as caught:
        grant(body)
    assert not caught.value.said


def test_200_with_an_error_that_is_no_text_is_unavailability() -> None:
    """An `error` that is not text is not a refusal."""
    with pytest.raises(TokenUnavailable, match="not text"):
        grant(GOOD | {"error": {"code": 1}})


@pytest.mark.parametrize("code", [SECRET, f"bad_{SECRET}", "x" * 65, "two words", "<b>", "ключ", "a\nb"])
def test_code_that_could_repeat_the_secret_or_break_a_log_is_not_shown(code: str) -> None:
    """A code that repeats the secret, is too long or has special characters is left out."""
    with pytest.raises(CredentialRejected) as caught:
        grant({"error": code}, status=400)
    assert "" == caught.value.code
    refused = "idp.example:443 refuses client_id=crm (HTTP 400): the server's documentation explains the code"
    assert refused == str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.text(), leaf, max_size=3),
)
FIELDS = st.sampled_from(["access_token", "expires_in", "token_type", "error", "error_description", "scope"])


@settings(deadline=None)
@given(st.dictionaries(FIELDS | st.text(), JSON), st.integers(200, 599))
def test_any_response_is_a_grant_or_our_error(fields: dict[str, Any], status: int) -> None:
    """Any JSON fields and status give a usable grant or one of our two errors."""
    try:
        granted = grant(fields, status=status)
    except (CredentialRejected, TokenUnavailable):
        return
    assert status < 300
    assert fields["access_token"] == granted.value
    assert 0 < granted.expires_in <= MAX_LIFETIME
    json.dumps(dict(granted.extra), allow_nan=False)


@pytest.mark.parametrize(
    ("status", "challenge", "rejected"),
    [
        (401, "", True),
        (401, "Bearer", True),
        (401, 'Bearer realm="a", error="invalid_token"', True),
        (401, 'Bearer error="invalid_token", error_description="error=insufficient_scope"', True),
        (401, "Bearer error=invalid_token", True),
        (401, 'Bearer error="insufficient_scope", scope="a"', False),
        (401, 'bearer realm="", ERROR = "Insufficient_Claims", claims="ey"', False),
        (401, 'Basic, Bearer error="insufficient_scope"', False),
        (401, 'Bearer not_error="insufficient_scope"', True),
        (403, 'Bearer error="insufficient_scope"', False),
        (403, 'Bearer error="invalid_token"', False),
        (400, 'Bearer realm="a", error="invalid_token"', True),
        (400, "Bearer error=invalid_token", True),
        (400, 'Bearer error="invalid_request"', False),
        (400, 'Bearer error="insufficient_scope"', False),
        (400, 'Bearer error_description="invalid_token"', False),
        (400, "Bearer", False),
        (400, "", False),
        (200, "", False),
        (500, "", False),
    ],
)
def test_api_rejects_a_token_with_401_or_by_name(status: int, challenge: str, *, rejected: bool) -> None:
    """A 401, unless its challenge says that the token lacks a permission (RFC 6750 §3.1), or a 400 that says so."""
    assert rejected is bearer_rejected(Answer(status, headers={"WWW-Authenticate": challenge} if challenge else {}))


@pytest.mark.parametrize("token", ["", None])
def test_an_empty_token_is_named_as_empty(token: object) -> None:
    """The field is there, so the text does not say that it is missing."""
    with pytest.raises(TokenUnavailable) as caught:
        grant({"access_token": token, "expires_in": 60})
    assert "answered HTTP 200 with an empty access_token: it has access_token, expires_in" in str(caught.value)
