from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import credential_text
from tokenmw.providers.base import Provider, lifetime, number
from tokenmw.testing import make_token
from tokenmw.values import MAX_LIFETIME


class Hand(Provider):
    """A provider as a user would write one."""

    __slots__ = ("asked", "name", "secret")
    kind = "hand"
    asked: list[str]

    def __init__(self, *, name: str, secret: str) -> None:
        self.name = name
        self.secret = secret
        self.asked = []

    def identity(self) -> tuple[object, ...]:
        self.asked.append("identity")
        return (self.name, self.secret)


class OtherHand(Hand):
    __slots__ = ()
    kind = "other"


class Outgoing:
    """A request or an answer of an API."""

    url = ""
    body = None

    def __init__(self, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = headers


def test_equal_credentials_are_one_key() -> None:
    """Providers made for each request share one token, in sets, dictionaries and comparisons."""
    first, same = Hand(name="a", secret="s"), Hand(name="a", secret="s")
    assert first == same
    assert hash(first) == hash(same)
    assert {first: 1}[same] == 1


@pytest.mark.parametrize(
    "other",
    [Hand(name="a", secret="t"), Hand(name="b", secret="s"), OtherHand(name="a", secret="s"), ("hand", "a", "s")],
)
def test_any_difference_is_another_key(other: object) -> None:
    """A rotated secret, another client, another kind."""
    assert Hand(name="a", secret="s") != other


def test_identity_is_asked_once() -> None:
    """Warm requests compare providers; that must not cost a digest of the credential each time."""
    hand = Hand(name="a", secret="s")
    assert [hash(hand) for _ in range(3)] == [hash(hand)] * 3
    assert ("hand", "a", "s") == hand.credential
    assert ["identity"] == hand.asked


def test_provider_is_frozen_and_closed() -> None:
    """It is the key of its token: it cannot change, and nothing can look into it."""
    hand = Hand(name="a", secret="s3cr3t")
    with pytest.raises(AttributeError, match="make a new provider"):
        hand.secret = "t"
    with pytest.raises(AttributeError, match="frozen"):
        del hand.secret
    with pytest.raises(AttributeError):
        hand.unknown = 1
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(hand)
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(hand)
    assert hand is copy.copy(hand) is copy.deepcopy(hand)
    assert not hasattr(hand, "__dict__")
    assert "<Hand>" == repr(hand) == str(hand)


def test_subclass_without_slots_is_refused_when_it_is_defined() -> None:
    """With a `__dict__`, an encoder could write out the secret."""
    with pytest.raises(ConfigurationError, match="__slots__"):
        type("Open", (Provider,), {"kind": "open"})


@pytest.mark.parametrize("kind", ["", "two words", "a-b"])
def test_subclass_needs_a_kind(kind: str) -> None:
    """The kind is a label of metrics and a part of the key."""
    with pytest.raises(ConfigurationError, match="kind"):
        type("Nameless", (Provider,), {"__slots__": (), "kind": kind})


def test_defaults_of_a_provider() -> None:
    """What a subclass leaves out means what the documentation says."""
    hand = Hand(name="a", secret="s")
    assert (False, None, None, True, None, False, "Bearer") == (
        hand.exclusive,
        hand.renewal_window,
        hand.refresh_before,
        hand.shareable,
        hand.hosts,
        hand.allow_http,
        hand.scheme,
    )


def test_token_goes_into_the_authorization_header() -> None:
    """Most APIs want it there (RFC 6750 §2.1)."""
    request = Outgoing()
    Hand(name="a", secret="s").authorize(request, make_token("t-1"))
    assert {"Authorization": "Bearer t-1"} == request.headers


@pytest.mark.parametrize(("status", "rejected"), [(200, False), (401, True), (403, False), (500, False)])
def test_only_401_means_that_the_token_is_not_valid(status: int, *, rejected: bool) -> None:
    """A 403 is about permissions, and a new token would have the same."""
    assert rejected is Hand(name="a", secret="s").is_rejected(Outgoing(status))


class Masked:
    """What pydantic's SecretStr is to us."""

    def get_secret_value(self) -> str:
        return "s3cr3t"


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        (Masked(), r"pass its \.get_secret_value\(\)"),
        (b"s3cr3t", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
        ("", "is empty"),
        ("s3cr3t\n", r"strip\(\) it"),
        ("s3\x00cr3t", "control character"),
        ("s3cr3t\x7f", "control character"),
        ("s3cr3t\udcff", "bytes that are not UTF-8"),
    ],
)
def test_unusable_credential_is_refused_without_showing_it(value: Any, mend: str) -> None:
    """The text names the option and the mend."""
    with pytest.raises(ConfigurationError, match=mend) as caught:
        credential_text(value, option="Hand(secret=…)")
    assert str(caught.value).startswith("Hand(secret=…) ")
    assert "s3" not in str(caught.value)


def test_usable_credential_comes_back_as_it_is() -> None:
    """Spaces, colons and letters of all languages are fine."""
    assert " ä:密 " == credential_text(" ä:密 ", option="o")
    assert "" == credential_text("", option="o", empty=True)


class Cases:
    """What `expires_in` has been seen as."""

    lives: ClassVar[list[tuple[Any, float]]] = [
        (3600, 3600.0),
        (3599.5, 3599.5),
        ("7200", 7200.0),
        (" 7200 ", 7200.0),
        ("1e3", 1000.0),
        (10**400, MAX_LIFETIME),
        (float(MAX_LIFETIME) + 1, MAX_LIFETIME),
        (5e-324, 5e-324),
    ]
    refused: ClassVar[list[Any]] = [
        *(0, -1, 0.0, -0.0, "0", "-5", -(10**400), math.nan, math.inf, -math.inf, "NaN", "Infinity", "-inf"),
        *(True, False, "", " ", "soon", "1h", "0x10", "1,000", [], [3600], {}, {"seconds": 3600}, b"3600"),
        # What Python reads as numbers, and JSON never writes.
        *("1_000", "\uff11\uff12", "\u0663600", "\xa07200", "+7200", ".5", "5.", "1e", "1e400", "7200\0"),
    ]


@pytest.mark.parametrize(("raw", "seconds"), Cases.lives)
def test_life_is_read_whatever_json_type_it_has(raw: object, seconds: float) -> None:
    """Servers send numbers, fractions, strings, and absurdities that are cut to 30 days."""
    assert seconds == lifetime(raw)
    assert seconds == lifetime(raw, default=1.0)


@pytest.mark.parametrize("raw", Cases.refused)
def test_life_that_is_none_is_refused_even_with_a_default(raw: object) -> None:
    """A default stands for a missing life, not for a wrong one."""
    with pytest.raises(TokenUnavailable, match="the token's life in the answer is not"):
        lifetime(raw, default=600.0)


def test_missing_life_takes_the_default_or_is_refused() -> None:
    """Null counts as missing."""
    assert 600.0 == lifetime(None, default=600.0)
    with pytest.raises(TokenUnavailable, match="does not say how long"):
        lifetime(None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda leaf: st.lists(leaf, max_size=2)
)


@settings(deadline=None)
@given(JSON)
def test_no_life_is_too_strange(raw: object) -> None:
    """The result is more than nothing and at most 30 days, or an error of ours."""
    try:
        seconds = lifetime(raw, default=600.0)
    except TokenUnavailable:
        return
    assert 0 < seconds <= MAX_LIFETIME
    assert isinstance(seconds, float)


@settings(deadline=None)
@given(st.floats(min_value=1e-3, max_value=MAX_LIFETIME))
def test_number_and_its_text_are_the_same_life(seconds: float) -> None:
    """`3600` and `"3600"` say the same."""
    assert seconds == lifetime(seconds) == lifetime(repr(seconds))


DIGITS = st.text("0123456789_+-.eE \t\uff11\u0663", max_size=12)


@given(DIGITS | st.text())
def test_text_is_a_number_only_if_json_could_write_it(text: str) -> None:
    """Python's own reader of JSON is asked; leading zeros are no octal to anybody, so they may stand there."""
    plain = text.strip(" \t\r\n")
    sign, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain)
    while len(digits) > 1 and digits[0] == "0" and digits[1] in "0123456789":
        digits = digits[1:]
    try:
        written: Any = json.loads(sign + digits)
    except ValueError:
        written = None
    is_number = isinstance(written, (int, float)) and not isinstance(written, bool) and "n" not in plain.lower()
    assert number(text) == (float(written) if is_number else None)
