"""The lifetime in a token response, of whatever JSON type it is."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmw.errors import TokenUnavailable
from tokenmw.providers.answer import lifetime, number
from tokenmw.values import MAX_LIFETIME

VALID: list[tuple[Any, float]] = [
    (3600, 3600.0),
    (3599.5, 3599.5),
    ("7200", 7200.0),
    (" 7200 ", 7200.0),
    ("1e3", 1000.0),
    (10**400, MAX_LIFETIME),
    (float(MAX_LIFETIME) + 1, MAX_LIFETIME),
    (5e-324, 5e-324),
]
INVALID: list[Any] = [
    *(0, -1, 0.0, -0.0, "0", "-5", -(10**400), math.nan, math.inf, -math.inf, "NaN", "Infinity", "-inf"),
    *(True, False, "", " ", "soon", "1h", "0x10", "1,000", [], [3600], {}, {"seconds": 3600}, b"3600"),
    # Python reads these as numbers; JSON never writes them.
    *("1_000", "\uff11\uff12", "\u0663600", "\xa07200", "+7200", ".5", "5.", "1e", "1e400", "7200\0"),
]


@pytest.mark.parametrize(("raw", "seconds"), VALID)
def test_lifetime_is_read_from_any_json_type(raw: object, seconds: float) -> None:
    """Numbers, fractions and strings are read, and huge values are cut to 30 days."""
    assert seconds == lifetime(raw)
    assert seconds == lifetime(raw, default=1.0)


@pytest.mark.parametrize("raw", INVALID)
def test_invalid_lifetime_is_refused_even_with_a_default(raw: object) -> None:
    """A default replaces a missing lifetime, not an invalid one."""
    with pytest.raises(TokenUnavailable, match="the token's lifetime in the response is not"):
        lifetime(raw, default=600.0)


def test_missing_lifetime_takes_the_default_or_is_refused() -> None:
    """Null counts as missing, and without a default a missing lifetime is an error."""
    assert 600.0 == lifetime(None, default=600.0)
    with pytest.raises(TokenUnavailable, match="does not say how long"):
        lifetime(None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda leaf: st.lists(leaf, max_size=2)
)


@settings(deadline=None)
@given(JSON)
def test_any_value_is_a_valid_lifetime_or_our_error(raw: object) -> None:
    """Any JSON value gives a positive lifetime of at most 30 days, or `TokenUnavailable`."""
    try:
        seconds = lifetime(raw, default=600.0)
    except TokenUnavailable:
        return
    assert 0 < seconds <= MAX_LIFETIME
    assert isinstance(seconds, float)


@settings(deadline=None)
@given(st.floats(min_value=1e-3, max_value=MAX_LIFETIME))
def test_number_and_its_text_are_the_same_lifetime(seconds: float) -> None:
    """`3600` and `"3600"` are the same lifetime."""
    assert seconds == lifetime(seconds) == lifetime(repr(seconds))


DIGITS = st.text("0123456789_+-.eE \t\uff11\u0663", max_size=12)


@given(DIGITS | st.text())
def test_text_is_a_number_only_if_json_could_write_it(text: str) -> None:
    """A text is read as a number exactly if Python's JSON reader reads it as one, leading zeros aside."""
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
