"""Grants and tokens: what a grant accepts, what neither shows, and the windows of a lifetime."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import pickle
import pprint
import warnings
from collections.abc import Callable
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
def test_a_grant_takes_visible_ascii(value: str) -> None:
    """Up to 16 KiB."""
    grant = Grant(value, expires_in=60)
    assert (value, 60.0, "Bearer", {}) == (grant.value, grant.expires_in, grant.token_type, dict(grant.extra))


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "a\nb", "a\r\nx-evil: 1", "a\x00", "a\x7f", "密", "é", None, b"t", 5, "x" * (MAX_TOKEN_BYTES + 1)],
)
def test_a_grant_refuses_any_other_value_and_does_not_show_it(value: Any) -> None:
    """An empty token would be useless, and one with a line break would add headers to outgoing requests."""
    with pytest.raises(TokenUnavailable, match=r"^the token (is|has)") as caught:
        Grant(value, expires_in=60)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("life", [0, -1, -0.0, math.nan, -math.inf, None, "60", True])
def test_a_lifetime_must_be_a_positive_number(life: Any) -> None:
    """A token that has expired when it arrives is a failure."""
    with pytest.raises(TokenUnavailable, match=r"lifetime is not a number|has already expired"):
        Grant("t", expires_in=life)


@pytest.mark.parametrize("life", [MAX_LIFETIME, MAX_LIFETIME + 1, 1e300, math.inf, 10**400])
def test_a_lifetime_is_cut_to_30_days(life: float) -> None:
    """A longer one is a mistake in the unit more often than not."""
    assert Grant("t", expires_in=life).expires_in == MAX_LIFETIME


@pytest.mark.parametrize("token_type", ["", " ", "two words", "Bearer\n", "a:b", "密", None, 5])
def test_a_token_type_must_be_one_word(token_type: Any) -> None:
    """It stands in front of the token in a header."""
    with pytest.raises(TokenUnavailable, match="type is not one word"):
        Grant("t", expires_in=60, token_type=token_type)


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@settings(deadline=None)
@given(value=st.text() | ANYTHING, life=ANYTHING, token_type=st.just("Bearer") | ANYTHING)
@example(value="t", life=10**400, token_type="Bearer")
@example(value="t", life=-(10**400), token_type="Bearer")
def test_a_grant_is_valid_or_raises_token_unavailable(value: Any, life: Any, token_type: Any) -> None:
    """For any arguments, there is no third outcome."""
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


@pytest.mark.parametrize("value", VALUES, ids=["Grant", "Token"])
def test_a_value_cannot_be_changed(value: Any) -> None:
    """Many requests share the same object."""
    for name in ("value", "unknown"):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(value, name, "other")
    with pytest.raises(AttributeError, match="frozen"):
        del value.value
    with pytest.raises(TypeError):
        value.extra["url"] = "https://evil.example"
    assert value is copy.copy(value) is copy.deepcopy(value)


@pytest.mark.parametrize("value", VALUES, ids=["Grant", "Token"])
def test_a_value_shows_no_secret(value: Any) -> None:
    """Neither its `repr` does, nor a pickle, a JSON encoder, or the encoder of FastAPI."""
    assert SECRET not in f"{value!r} {[value]}"
    assert not dataclasses.is_dataclass(value)
    assert not hasattr(value, "__dict__")
    for encode in (pickle.dumps, json.dumps, jsonable_encoder):
        with pytest.raises((TypeError, ValueError)) as caught:
            encode(value)
        assert SECRET not in str(caught.value)


def test_extra_is_a_copy() -> None:
    """A later change of the provider's own dictionary has no effect."""
    mine = {"a": 1}
    grant, token = Grant("t", expires_in=1, extra=mine), make_token(extra=mine)
    mine["a"] = 2
    assert {"a": 1} == dict(grant.extra) == dict(token.extra)


def test_authorization_is_the_whole_header() -> None:
    """With the provider's scheme."""
    assert "Bearer t-1" == make_token("t-1").authorization
    assert "QQBot t-1" == make_token("t-1", scheme="QQBot").authorization


FORMATS: list[Callable[[Token], str]] = [
    lambda token: f"Bearer {token}",
    lambda token: f"{token:>40}",
    "Bearer {}".format,
    format,
]


@pytest.mark.parametrize("formatted", FORMATS)
def test_a_token_in_an_f_string_raises_with_the_fix(formatted: Callable[[Token], str]) -> None:
    """A header with a masked text would only cause a 401 that says nothing."""
    with pytest.raises(TypeError, match=r"token\.authorization.*token\.value.*\{token!r\}") as caught:
        formatted(make_token(SECRET))
    assert SECRET not in str(caught.value)


TEXTS: list[Callable[[Token], str]] = [
    lambda token: "Bearer " + str(token),
    lambda token: "Bearer %s" % token,  # noqa: UP031  the old style is what is tested
    lambda token: f"Bearer {token!s}",
    lambda token: str(ValueError(token)),
]


@pytest.mark.parametrize("made", TEXTS)
def test_a_token_as_text_warns_and_shows_the_fix(made: Callable[[Token], str]) -> None:
    """It does not raise: loggers and error reports make such texts, and would lose what they report."""
    with pytest.warns(RuntimeWarning, match=r"str\(token\) is not the token.*token\.authorization"):
        text = made(make_token(SECRET, provider="crm"))
    assert "not the token" in text
    assert "crm" in text
    assert SECRET not in text


def test_a_logged_token_is_one_warning_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The line is written, however often, and the warning is shown once."""
    token = make_token(SECRET)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            logging.getLogger("program").warning("got %s", token)
        assert 3 == len(caplog.messages)
    assert 1 == len(shown)
    assert SECRET not in caplog.text


REPORTS: list[Callable[[Token], str]] = [
    repr,
    lambda token: f"{token!r}",
    lambda token: f"{[token]}",
    pprint.pformat,
]


@pytest.mark.parametrize("shown", REPORTS)
def test_a_report_of_a_token_neither_warns_nor_raises(shown: Callable[[Token], str]) -> None:
    """Debuggers, pytest, and error reports show the `repr`, which has no secret."""
    assert "<Token of test" in shown(make_token(SECRET, provider="test"))
    assert SECRET not in shown(make_token(SECRET))


def test_authorization_of_a_token_that_goes_elsewhere_names_the_fix() -> None:
    """WeCom takes its token in the query, and an `Authorization` header with it would be a leak."""
    with pytest.raises(ConfigurationError, match=r"wecom does not .*use auth=broker\.auth\('wecom'\)"):
        _ = make_token("t-1", provider="wecom", scheme=None).authorization


def test_a_token_with_another_name_is_the_same_token() -> None:
    """Two names may have one credential."""
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
        (86_399, {"refresh_in": 43_199}, 43_200, 10),
        (86_399, {"refresh_in": 85_000}, 3600, 10),
        (86_399, {"refresh_in": 10}, 0.9 * 86_399, 10),
        *((86_400, {"refresh_in": odd}, 3600, 10) for odd in (0, -1, 86_400, math.inf, -math.inf, math.nan)),
        (86_399, {"refresh_in": 43_199, "refresh_before": 600}, 600, 10),
        (86_399, {"refresh_in": 43_199, "renewal_window": 60}, 54, 10),
    ],
)
def test_windows_follow_the_formula(life: float, options: dict[str, Any], refresh: float, stop: float) -> None:
    """A quarter of the lifetime, an hour, or 0.9 of the renewal window; `refresh_before` up to half the lifetime."""
    found = windows(life, **options)
    assert pytest.approx((refresh, stop)) == (found.refresh, found.stop)


SECONDS = st.floats(min_value=1e-6, max_value=MAX_LIFETIME)


@settings(deadline=None)
@given(SECONDS, st.none() | SECONDS, st.none() | st.just(0.0) | SECONDS, st.none() | st.floats())
def test_windows_leave_time_in_which_the_token_is_fresh(
    life: float, refresh_before: float | None, renewal_window: float | None, refresh_in: float | None
) -> None:
    """No token is due for a refresh when it arrives, and the refresh starts before the token is no longer returned."""
    found = windows(life, refresh_before=refresh_before, renewal_window=renewal_window, refresh_in=refresh_in)
    usual = windows(life, refresh_before=refresh_before, renewal_window=renewal_window)
    assert 0 <= found.stop <= usual.refresh <= life / 2
    assert usual.refresh <= found.refresh <= 0.9 * life
    assert found.refresh == 0 or found.stop < 0.8 * found.refresh
    assert renewal_window is None or found.refresh <= renewal_window


def test_repr_of_windows_has_both() -> None:
    """For failing tests."""
    assert "Windows(refresh=54, stop=10)" == repr(Windows(54.0, 10.0))
