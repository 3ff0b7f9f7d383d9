"""Whatever a platform answers: a usable grant or one of our two errors; and a verdict on any answer of its API."""

from __future__ import annotations

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
from tokenmw.providers.microsoft_answer import entra_grant, error_codes
from tokenmw.providers.oauth2_answer import bearer_rejected
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
    """Run what waits for nothing, without a loop: these are thousands."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("It waits.")


class Fixed:
    """In place of `TokenHTTP`: gives one answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def request(self, *_: object, **__: object) -> Answer:
        return self.answer


def fetched(provider: Provider, answer: Answer) -> Grant | CredentialRejected | TokenUnavailable:
    """Return what an answer of the token endpoint becomes."""
    http: Any = Fixed(answer)
    try:
        granted: Grant = finished(provider.fetch(http))
    except (CredentialRejected, TokenUnavailable) as error:
        return error
    return granted


def check(outcome: Grant | CredentialRejected | TokenUnavailable, fields: dict[str, Any], status: int) -> None:
    """Assert that a grant is of the answer, and that an error can be shown."""
    if isinstance(outcome, Grant):
        assert 200 <= status < 300
        assert outcome.value in fields.values()
        assert 0 < outcome.expires_in <= MAX_LIFETIME
        json.dumps(dict(outcome.extra), allow_nan=False)
    else:
        assert str(outcome).isprintable()
        assert SECRET not in str(outcome) + repr(vars(outcome))


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_no_answer_of_a_platform_is_too_strange(platform: Platform) -> None:
    """Fields of any type and any status."""

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
def test_no_answer_of_an_identity_endpoint_is_too_strange(fields: dict[str, Any], status: int, date: str) -> None:
    """Its lives are instants, and its numbers text."""
    machine = ManagedIdentity(resource="https://graph.microsoft.com")
    outcome = fetched(machine, Answer(status, headers={"date": date}, body=json.dumps(fields).encode()))
    check(outcome, fields, status)
    if "_" in str(fields.get("expires_on")) and "expires_in" not in fields:
        assert isinstance(outcome, TokenUnavailable)


@settings(max_examples=50)
@given(FIELDS, STATUSES)
def test_no_answer_of_entra_is_too_strange(fields: dict[str, Any], status: int) -> None:
    """Its numbers are numbers, and few."""
    answer = Answer(status, body=json.dumps(fields).encode())
    assert all(0 < code < 10**9 for code in error_codes(answer))
    assert len(error_codes(answer)) <= 8
    try:
        outcome: Any = entra_grant(answer, repeats_secret=lambda text: SECRET in text)
    except (CredentialRejected, TokenUnavailable) as error:
        outcome = error
    check(outcome, fields, status)


@given(JSON)
def test_a_code_is_text_whatever_it_came_as(raw: object) -> None:
    """In lower case; and read again it is the same one."""
    code = code_of(raw)
    assert code == code.lower() or not code.isascii()
    assert code == code_of(code) or not code.isascii()


@given(st.integers(0, 10**18 - 1), st.text())
@example(0, "9" * 5000)
@example(0, "\uff11\uff12")
def test_a_length_is_digits_that_can_be_a_length(length: int, text: str) -> None:
    """RFC 9110 §8.6; Python reads more than that, and refuses what is too long with an error."""
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
def test_no_answer_of_an_api_is_too_strange_to_be_judged(body: bytes, headers: dict[str, str], status: int) -> None:
    """Yes or no; and who made the request reads all of the answer."""
    for provider in JUDGES:
        response = httpx.Response(
            status, headers=headers, stream=httpx.ByteStream(body), request=httpx.Request("GET", "https://a.example/")
        )
        verdict = finished(is_rejected(response, provider=provider, library=httpx))
        assert verdict in (True, False)
        assert not verdict or status in (200, 400, 401)
        assert body == finished(read_all(response))


async def read_all(response: httpx.Response) -> bytes:
    """Read a body as it comes over the wire."""
    stream: Any = response.stream
    return b"".join([chunk async for chunk in stream])


@given(st.text(), STATUSES)
def test_only_a_401_is_a_rejected_bearer_token(challenge: str, status: int) -> None:
    """Whatever it asks for; unless it says that the token is valid."""
    answer = Answer(status, headers={"www-authenticate": challenge})
    assert bearer_rejected(answer) is (status == 401) or "error" in challenge.lower()
