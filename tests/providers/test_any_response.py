"""Any response: a token endpoint's is a grant or one of our two errors, and an API's is judged without an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.providers.platforms import PLATFORMS, Platform
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.outgoing.response import is_rejected
from tokenmw.providers import Answer, Entra, ManagedIdentity, Provider
from tokenmw.providers.body_codes import code_of, declared_length
from tokenmw.providers.entra import entra_grant, error_codes
from tokenmw.providers.grant_reader import GrantReader, bearer_rejected
from tokenmw.providers.proof import Proof
from tokenmw.values import MAX_LIFETIME, Grant

SECRET = "s3cr3t"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["t-1", SECRET, "0", "7200"]),
    lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.text(), leaf, max_size=3),
)
NAMES = [
    *("access_token", "accessToken", "tenant_access_token", "app_access_token", "expires_in", "expireIn", "expire"),
    *("expires_on", "code", "errcode", "error", "error_codes", "sub_code", "token_type"),
]
FIELDS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), JSON, max_size=6)
STATUSES = st.sampled_from([200, 201, 204, 400, 401, 403, 404, 410, 429, 500, 503])


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, without an event loop, because the tests run thousands."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("The coroutine has waited.")


class Fixed:
    """A stand-in for `TokenHTTP` with one response."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def request(self, *_: object, **__: object) -> Answer:
        return self.answer


def fetched(provider: Provider, answer: Answer) -> Grant | CredentialRejected | TokenUnavailable:
    """Return the result of a token endpoint's response."""
    http: Any = Fixed(answer)
    try:
        granted: Grant = finished(provider.fetch(http))
    except (CredentialRejected, TokenUnavailable) as error:
        return error
    return granted


def check(outcome: Grant | CredentialRejected | TokenUnavailable, fields: dict[str, Any], status: int) -> None:
    """Assert that a grant comes from the response, and that an error has no secret."""
    if isinstance(outcome, Grant):
        assert 200 <= status < 300
        assert outcome.value in fields.values()
        assert 0 < outcome.expires_in <= MAX_LIFETIME
        json.dumps(dict(outcome.extra), allow_nan=False)
    else:
        assert str(outcome).isprintable()
        assert SECRET not in str(outcome) + repr(vars(outcome))


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_any_platform_response_is_a_grant_or_our_error(platform: Platform) -> None:
    """Fields of any type, with any status."""

    @settings(max_examples=30)
    @given(FIELDS, STATUSES)
    def hold(fields: dict[str, Any], status: int) -> None:
        answer = Answer(status, body=json.dumps(fields).encode())
        check(fetched(platform.make(), answer), fields, status)

    hold()


@settings(max_examples=50)
@given(FIELDS, STATUSES, st.sampled_from(["Tue, 05 Mar 2024 00:00:00 GMT", "", "soon"]))
@example({"access_token": "t", "expires_on": 10**400}, 200, "")
@example({"access_token": "t", "expires_on": "9_999_999_999"}, 200, "")
def test_any_identity_endpoint_response_is_a_grant_or_our_error(fields: dict[str, Any], status: int, date: str) -> None:
    """Fields of any type, `expires_on` included, with any status and date."""
    machine = ManagedIdentity(resource="https://graph.microsoft.com")
    outcome = fetched(machine, Answer(status, headers={"date": date}, body=json.dumps(fields).encode()))
    check(outcome, fields, status)
    if "_" in str(fields.get("expires_on")) and "expires_in" not in fields:
        assert not isinstance(outcome, Grant)


@settings(max_examples=50)
@given(FIELDS, STATUSES)
def test_any_entra_response_is_a_grant_or_our_error(fields: dict[str, Any], status: int) -> None:
    """Fields of any type give at most eight numeric codes."""
    answer = Answer(status, body=json.dumps(fields).encode())
    assert all(0 < code < 10**9 for code in error_codes(answer))
    assert len(error_codes(answer)) <= 8
    reader = GrantReader(
        client="client_id=app", client_fix="check client_id", url="https://l/t", default_lifetime=600.0
    )
    try:
        outcome: Any = entra_grant(answer, Proof(SECRET, form={}, headers={}), reader=reader)
    except (CredentialRejected, TokenUnavailable) as error:
        outcome = error
    check(outcome, fields, status)


@given(JSON)
def test_code_of_any_value_is_text_in_lower_case(raw: object) -> None:
    """Reading a code again returns the same code."""
    code = code_of(raw)
    assert code == code.lower() or not code.isascii()
    assert code == code_of(code) or not code.isascii()


@given(st.integers(0, 10**18 - 1), st.text())
@example(0, "9" * 5000)
@example(0, "\uff11\uff12")
def test_declared_length_is_ascii_digits(length: int, text: str) -> None:
    """Only ASCII digits are a length (RFC 9110 §8.6), and an absurdly long number is none."""
    assert length == declared_length({"content-length": str(length)})
    found = declared_length({"content-length": text})
    assert found is None or found == int(text.encode("ascii"))


HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "content-length", "content-encoding", "www-authenticate"]),
    st.sampled_from(
        [
            *("application/json", "text/plain", "", "gzip", "10", "9" * 5000, 'Bearer error="invalid_token"'),
            *("application/problem+json; charset=x", "Bearer error=insufficient_scope", "error" * 20),
        ]
    )
    | st.text('abc/=; \t"', max_size=10),
)
JUDGES = [platform.make() for platform in PLATFORMS] + [Entra(tenant="a", client_id="b", client_secret="c")]


@settings(max_examples=40)
@given(FIELDS.map(lambda fields: json.dumps(fields).encode()) | st.binary(), HEADERS, STATUSES)
def test_any_api_response_is_judged(body: bytes, headers: dict[str, str], status: int) -> None:
    """Any response is a rejection or not, and the caller can still read its whole body."""
    asyncio.run(judge(body, headers, status))


async def judge(body: bytes, headers: dict[str, str], status: int) -> None:
    """Judge a response by each provider."""
    for provider in JUDGES:
        response = httpx.Response(
            status, headers=headers, stream=httpx.ByteStream(body), request=httpx.Request("GET", "https://a.example/")
        )
        verdict = await is_rejected(response, provider=provider, library=httpx)
        assert verdict in (True, False)
        assert not verdict or status in (200, 400, 401)
        assert body == await read_all(response)


async def read_all(response: httpx.Response) -> bytes:
    """Read a body from its stream."""
    stream: Any = response.stream
    return b"".join([chunk async for chunk in stream])


@given(st.text(), STATUSES)
def test_only_a_401_rejects_a_bearer_token(challenge: str, status: int) -> None:
    """Any challenge without an error code, and no other status, rejects the token."""
    answer = Answer(status, headers={"www-authenticate": challenge})
    assert bearer_rejected(answer) is (status == 401) or "error" in challenge.lower()
