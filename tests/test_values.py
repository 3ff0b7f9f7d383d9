from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from typing import Any

import pytest
from fastapi.encoders import jsonable_encoder
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.testing import make_token
from tokenmw.values import MAX_LIFETIME, MAX_TOKEN_BYTES, Grant, Token, Windows, windows

SECRET = "s3cr3t-token"


@pytest.mark.parametrize("value", ["t", "t-1_./~+=!", "x" * MAX_TOKEN_BYTES])
def test_token_of_visible_ascii_is_granted(value: str) -> None:
    """Whatever fits into a header line."""
    grant = Grant(value, expires_in=60)
    assert (value, 60.0, "Bearer", {}) == (grant.value, grant.expires_in, grant.token_type, dict(grant.extra))


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "a\nb", "a\r\nx-evil: 1", "a\x00", "a\x7f", "密", "é", None, b"t", 5, "x" * (MAX_TOKEN_BYTES + 1)],
)
def test_anything_else_is_refused_without_being_shown(value: Any) -> None:
    """An empty token, or one that would add header lines to our callers' requests, is never handed out."""
    with pytest.raises(TokenUnavailable, match=r"^the token (is|has)") as caught:
        Grant(value, expires_in=60)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("life", [0, -1, -0.0, math.nan, -math.inf, None, "60", True])
def test_life_must_be_more_than_nothing(life: Any) -> None:
    """A token that has expired when it arrives is a failure."""
    with pytest.raises(TokenUnavailable, match=r"lifetime is not a number|has already expired"):
        Grant("t", expires_in=life)


@pytest.mark.parametrize("life", [MAX_LIFETIME, MAX_LIFETIME + 1, 1e300, math.inf, 10**400])
def test_life_beyond_30_days_is_cut(life: float) -> None:
    """It is a slip of a unit more often than a fact."""
    assert Grant("t", expires_in=life).expires_in == MAX_LIFETIME


@pytest.mark.parametrize("token_type", ["", " ", "two words", "Bearer\n", "a:b", "密", None, 5])
def test_type_must_be_one_word(token_type: Any) -> None:
    """It goes in front of the token in a header."""
    with pytest.raises(TokenUnavailable, match="type is not one word"):
        Grant("t", expires_in=60, token_type=token_type)


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@settings(deadline=None)
@given(value=st.text() | ANYTHING, life=ANYTHING, token_type=st.just("Bearer") | ANYTHING)
@example(value="t", life=10**400, token_type="Bearer")
@example(value="t", life=-(10**400), token_type="Bearer")
def test_no_grant_is_too_strange(value: Any, life: Any, token_type: Any) -> None:
    """Either it can be used as it is, or it is our error."""
    try:
        grant = Grant(value, expires_in=life, token_type=token_type)
    except TokenUnavailable:
        return
    assert grant.value
    assert grant.value.isascii()
    assert grant.value.isprintable()
    assert 0 < grant.expires_in <= MAX_LIFETIME


VALUES = [
    Grant(SECRET, expires_in=60, extra={"url": "https://x.example"}),
    make_token(SECRET, extra={"url": "https://x.example"}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_value_cannot_be_changed(value: Any) -> None:
    """Many requests hold the same object."""
    for name in ("value", "unknown"):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(value, name, "other")
    with pytest.raises(AttributeError, match="frozen"):
        del value.value
    with pytest.raises(TypeError):
        value.extra["url"] = "https://evil.example"
    assert value is copy.copy(value) is copy.deepcopy(value)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_nothing_looks_into_a_value(value: Any) -> None:
    """Not the representation, a pickle, a JSON encoder, or the one that a FastAPI route uses."""
    assert SECRET not in f"{value!r} {value} {[value]}"
    assert not dataclasses.is_dataclass(value)
    assert not hasattr(value, "__dict__")
    for encode in (pickle.dumps, json.dumps, jsonable_encoder):
        with pytest.raises((TypeError, ValueError)) as caught:
            encode(value)
        assert SECRET not in str(caught.value)


def test_extra_is_a_copy() -> None:
    """What the provider's code does with its dictionary afterwards has no effect."""
    mine = {"a": 1}
    grant, token = Grant("t", expires_in=1, extra=mine), make_token(extra=mine)
    mine["a"] = 2
    assert {"a": 1} == dict(grant.extra) == dict(token.extra)


def test_authorization_is_the_whole_header() -> None:
    """The scheme is the provider's."""
    assert "Bearer t-1" == make_token("t-1").authorization
    assert "QQBot t-1" == make_token("t-1", scheme="QQBot").authorization


def test_authorization_of_a_token_that_goes_elsewhere_names_the_mend() -> None:
    """A WeCom token in an `Authorization` header would be a leak."""
    with pytest.raises(ConfigurationError, match=r"wecom does not .*use auth=broker\.auth\('wecom'\)"):
        _ = make_token("t-1", provider="wecom", scheme=None).authorization


def test_token_under_another_name_is_the_same_token() -> None:
    """Two names may stand for one credential."""
    origin = object()
    one = Token("t", provider="a", expires_at=1.0, token_type="X", extra={"e": 1}, scheme="X", origin=origin)
    other = one._under("b")
    assert ("b", "a") == (other.provider, one.provider)
    kept = ("value", "expires_at", "token_type", "extra", "authorization", "_origin")
    assert [getattr(one, name) for name in kept] == [getattr(other, name) for name in kept]


@pytest.mark.parametrize(
    ("life", "options", "refresh", "stop"),
    [
        (0.064, {}, 0.016, 0.00128),
        (599, {}, 149.75, 10),
        (3600, {}, 900, 10),
        (7200, {}, 1800, 10),
        (86_400, {}, 3600, 10),
        (MAX_LIFETIME, {}, 3600, 10),
        (7200, {"renewal_window": 60}, 54, 10),
        (1800, {"renewal_window": 1800}, 450, 10),
        (7200, {"renewal_window": 0}, 0, 0),
        (7200, {"refresh_before": 600}, 600, 10),
        (7200, {"refresh_before": 7000}, 3600, 10),
        (7200, {"refresh_before": 5400}, 3600, 10),
        (86_400, {"refresh_before": 14_400}, 14_400, 10),
        (7200, {"refresh_before": 4}, 4, 1),
        (7200, {"refresh_before": 600, "renewal_window": 60}, 54, 10),
        (7200, {"refresh_before": 600, "renewal_window": 0}, 0, 0),
    ],
)
def test_windows_follow_the_formula(life: float, options: dict[str, Any], refresh: float, stop: float) -> None:
    """A quarter of the life, at most an hour and 0.9 of the provider's window; the user's wish up to half the life."""
    found = windows(life, **options)
    assert pytest.approx((refresh, stop)) == (found.refresh, found.stop)


SECONDS = st.floats(min_value=1e-6, max_value=MAX_LIFETIME)


@settings(deadline=None)
@given(SECONDS, st.none() | SECONDS, st.none() | st.just(0.0) | SECONDS)
def test_windows_leave_a_time_in_which_the_token_is_fresh(
    life: float, refresh_before: float | None, renewal_window: float | None
) -> None:
    """No token is due for renewal as soon as it is there, and renewal begins before the token is withheld."""
    found = windows(life, refresh_before=refresh_before, renewal_window=renewal_window)
    assert 0 <= found.stop <= found.refresh <= life / 2
    assert found.refresh == 0 or found.stop < 0.8 * found.refresh
    assert renewal_window is None or found.refresh <= renewal_window


def test_windows_show_what_they_are() -> None:
    """For logs of tests."""
    assert "Windows(refresh=54, stop=10)" == repr(Windows(54.0, 10.0))
