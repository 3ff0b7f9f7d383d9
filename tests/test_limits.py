"""`Limits`: every bound is checked, ordered and documented."""

from __future__ import annotations

import inspect
import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits

NAMES = [field.name for field in fields(Limits)]
COUNTS = [name for name in NAMES if isinstance(getattr(Limits(), name), int)]


def test_defaults_are_in_order() -> None:
    """A fetch ends before its lease, and a lease before the wait for it."""
    limits = Limits()
    assert limits.fetch_seconds < limits.lease_seconds < limits.wait_seconds


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "5", None, True])
def test_a_bound_must_be_a_positive_number(name: str, value: Any) -> None:
    """Zero and infinity are not bounds; the text names the option."""
    with pytest.raises(ConfigurationError, match=rf"^Limits\({name}=…\) must be a positive, finite number, not "):
        Limits(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_must_be_a_whole_number(name: str) -> None:
    """The text names the option."""
    options: dict[str, Any] = {name: 1.5}
    with pytest.raises(ConfigurationError, match=rf"^Limits\({name}=…\) must be a whole number\.$"):
        Limits(**options)


def test_a_duration_may_be_a_whole_number() -> None:
    """`5` is five seconds."""
    assert 5 == Limits(fetch_seconds=5).fetch_seconds


@pytest.mark.parametrize(
    "options",
    [{"fetch_seconds": 6.0}, {"lease_seconds": 5.0}, {"lease_seconds": 12.0}, {"wait_seconds": 6.0}],
)
def test_durations_out_of_order_are_refused(options: dict[str, Any]) -> None:
    """Else a second process would fetch while the first one is still allowed to."""
    with pytest.raises(ConfigurationError, match="fetch_seconds < lease_seconds < wait_seconds must hold"):
        Limits(**options)


def test_limits_are_frozen_and_replaceable() -> None:
    """They are checked once, and cannot change afterwards."""
    limits = Limits(tokens=5)
    with pytest.raises(FrozenInstanceError):
        limits.tokens = 6  # type: ignore[misc]
    assert 6 == replace(limits, tokens=6).tokens
    assert Limits(tokens=5) == limits


def test_every_bound_is_documented() -> None:
    """The docstring, from which the options page is written, has each of them."""
    documented = inspect.getdoc(Limits) or ""
    for name in NAMES:
        assert f"\n    {name}: " in documented


def test_bounds_are_keyword_only() -> None:
    """A number without a name would not be readable."""
    positional: Any = Limits
    with pytest.raises(TypeError):
        positional(5)
