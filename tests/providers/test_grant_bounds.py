"""What a token endpoint's response may cost: time of the event loop, memory, and room in Redis."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.platforms import PLATFORMS, Platform
from tests.providers.test_any_response import SECRET, fetched
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import Answer, ClientCredentials, Entra, ManagedIdentity
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.providers import Provider

MANY = 20_000
GOOD: dict[str, Any] = {"access_token": "t-1", "expires_in": 60}
OAUTH = ClientCredentials(token_url="https://idp.example/token", client_id="crm", client_secret=SECRET)


def many(count: int, value: object) -> dict[str, Any]:
    """Return fields that no provider knows."""
    return {f"field{n:06}": value for n in range(count)}


def grant(provider: Provider, document: object, *, status: int = 200) -> Any:
    """Return the result of a response."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return fetched(provider, Answer(status, body=body))


FOR_COLLECTOR = 200
"""Calls by the garbage collector's callbacks, such as Hypothesis's: far fewer than one for each field."""


def calls(function: Callable[[], object]) -> int:
    """Return how many functions, Python's own included, a function calls at least: others run beside it at times."""
    counts: list[int] = []
    for _ in range(3):
        seen = Counter[str]()
        sys.setprofile(lambda _frame, event, _argument: seen.update([event]))  # noqa: B023  called in this round
        try:
            function()
        finally:
            sys.setprofile(None)
        counts.append(seen["call"] + seen["c_call"])
    return min(counts)


@pytest.mark.parametrize("value", ["x", [], 1, None, "x" * 40])
def test_work_does_not_grow_with_the_number_of_fields(value: object) -> None:
    """65 000 fields once stalled the event loop for up to 13 s; now 64 are looked at."""
    few, body = many(64, value) | GOOD, json.dumps(many(MANY, value) | GOOD).encode()
    assert calls(lambda: grant(OAUTH, body)) <= calls(lambda: grant(OAUTH, few)) + FOR_COLLECTOR


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
@pytest.mark.parametrize("status", [200, 400])
def test_work_of_platforms_does_not_grow_with_the_number_of_fields(platform: Platform, status: int) -> None:
    """Platforms read single fields only, by name."""
    good = {platform.token: "t-1", platform.lifetime: 60}
    body = json.dumps(many(MANY, []) | good).encode()
    provider = platform.make()
    _ = provider.credential
    few = calls(lambda: grant(provider, good, status=status))
    assert calls(lambda: grant(provider, body, status=status)) <= few + FOR_COLLECTOR


def test_known_fields_are_found_behind_any_number_of_others() -> None:
    """Only fields for `extra` are bounded."""
    unknown = many(MANY, 1)
    granted = grant(OAUTH, unknown | GOOD | {"token_type": "bearer"})
    assert ("t-1", 60.0, 32) == (granted.value, granted.expires_in, len(granted.extra))
    assert "without access_token" in str(grant(OAUTH, unknown))


@pytest.mark.parametrize("kind", ["entra", "managed_identity"])
def test_microsoft_s_answers_are_bounded_too(kind: str) -> None:
    """Entra reads its response as OAuth servers' are read; identity endpoints have no `extra`."""
    provider: Provider = Entra(tenant="a.example", client_id="b", client_secret=SECRET)
    if kind == "managed_identity":
        provider = ManagedIdentity(resource="https://graph.microsoft.com")
    few, body = many(64, []) | GOOD, json.dumps(many(MANY, []) | GOOD).encode()
    for status in (200, 400):
        assert calls(lambda: grant(provider, body, status=status)) <= FOR_COLLECTOR + calls(  # noqa: B023  called at once
            lambda: grant(provider, few, status=status)  # noqa: B023  called at once
        )


def test_answers_of_more_than_64_kib_are_not_read() -> None:
    """64 KiB of JSON are parsed within 5 ms; a megabyte takes up to 50."""
    assert 64 << 10 == Limits().answer_bytes


def test_extra_is_at_most_16_kib() -> None:
    """It is kept as long as the token; what does not fit is left out."""
    granted = grant(OAUTH, GOOD | {f"f{n}": "x" * 4000 for n in range(20)} | {"instance_url": "https://a.example"})
    assert ["f0", "f1", "f2", "f3", "instance_url"] == list(granted.extra)
    wide = grant(OAUTH, GOOD | {"f": "\u4e2d" * 4000, "g": "a"})
    assert {"g": "a"} == dict(wide.extra)  # 24 000 bytes as JSON in ASCII


@pytest.mark.parametrize("value", [10**30, -(10**30), math.inf, -math.inf, math.nan, "\ud800", "a\udfff"])
def test_odd_values_are_not_kept(value: object) -> None:
    """Numbers beyond 64 bits or without an end, and halves of surrogate pairs, which nothing can print."""
    granted = grant(OAUTH, GOOD | {"a": 1, "b": value, f"\ud800{value}": 1})
    assert {"a": 1} == dict(granted.extra)


@pytest.mark.parametrize(
    "body",
    [
        b'{"access_token": "t-1", "expires_in": 60, "a": 1e999}',
        b'{"access_token": "t-1", "expires_in": 60, "a": NaN}',
        b'{"access_token": "old", "access_token": "t-1", "expires_in": 60}',
        b'{"access_token": "t-1", "expires_in": 60, "a": ' + b"9" * 4_000 + b"}",
        b'{"access_token": "t-1", "expires_in": 60, "a": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
    ids=["infinity", "NaN", "twice", "4000 digits", "500 lists"],
)
def test_odd_json_is_read(body: bytes) -> None:
    """Of a field that is sent twice, the last value counts; other fields' values do no harm."""
    granted = grant(OAUTH, body)
    assert ("t-1", 60.0, {}) == (granted.value, granted.expires_in, dict(granted.extra))


@pytest.mark.parametrize(
    "body",
    [
        b'{"access_token": "t-1", "expires_in": 60, "a": ' + b"9" * 5_000 + b"}",
        b'{"access_token": "\\ud800", "expires_in": 60}',
        b'{"access_token": "t-1", "expires_in": 1e999}',
        b'{"access_token": "t-1", "expires_in": "' + b"9" * 60_000 + b'"}',
        b'{"access_token": "t-1", "expires_in": "0.' + b"0" * 60_000 + b'1e60002"}',
    ],
    ids=["5000 digits", "half a pair", "infinity", "60000 digits", "60000 zeros"],
)
def test_unreadable_answers_are_unavailability(body: bytes) -> None:
    """Neither `int`'s limit of digits nor odd numbers raise another error."""
    assert isinstance(grant(OAUTH, body), TokenUnavailable)


def test_deep_lists_are_left_out_or_unreadable() -> None:
    """The depth of the parser, which Python 3.14 does not limit, raises no other error, and no list is kept."""
    granted = grant(OAUTH, b'{"access_token": "t-1", "expires_in": 60, "a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}")
    assert isinstance(granted, TokenUnavailable) or dict(granted.extra) == {}


def test_a_grant_of_a_program_has_the_same_bounds() -> None:
    """`extra` is bounded as JSON in ASCII, `token_type` in characters, the token in bytes."""
    largest = Grant("t" * (16 << 10), expires_in=1, token_type="x" * 64, extra={"a": "x" * (16_384 - 9)})
    assert 16_384 == len(json.dumps(dict(largest.extra)))
    too_long: list[dict[str, Any]] = [
        {"extra": {"a": "x" * 16_384}},
        {"extra": {"a": [1] * 9_000}},
        {"token_type": "x" * 65},
    ]
    for options in too_long:
        with pytest.raises(TokenUnavailable, match=r"extra is longer than 16384 bytes|of at most 64 characters"):
            Grant("t", expires_in=1, **options)
    with pytest.raises(TokenUnavailable, match="longer than 16384 bytes"):
        Grant("t" * ((16 << 10) + 1), expires_in=1)
