"""Options that providers share: credentials that are text, and durations."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.options import credential_text, positive_seconds
from tokenmw.providers import DingTalk, FeishuApp, FeishuTenant


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "60", None, [60]])
def test_duration_must_be_a_positive_number(value: object) -> None:
    """A duration that is not positive and finite is refused, and the text names the option."""
    with pytest.raises(ConfigurationError, match=r"^P\(refresh_before=…\) must be a positive, finite number"):
        positive_seconds(value, option="P(refresh_before=…)")


@pytest.mark.parametrize("value", [1, 0.5, 1e9])
def test_positive_duration_comes_back(value: float) -> None:
    """A valid duration is returned as it is."""
    assert value == positive_seconds(value, option="o")


class Masked:
    """A stand-in for pydantic's `SecretStr`."""

    def get_secret_value(self) -> str:
        return "s3cr3t"


@pytest.mark.parametrize(
    ("value", "fix"),
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
def test_unusable_credential_is_refused_without_showing_it(value: Any, fix: str) -> None:
    """The text names the option and the fix, never the value."""
    with pytest.raises(ConfigurationError, match=fix) as caught:
        credential_text(value, option="Hand(secret=…)")
    assert str(caught.value).startswith("Hand(secret=…) ")
    assert "s3" not in str(caught.value)


def test_usable_credential_is_returned_unchanged() -> None:
    """Spaces, colons and letters of every script are allowed."""
    assert " ä:密 " == credential_text(" ä:密 ", option="o")
    assert "" == credential_text("", option="o", empty=True)


@pytest.mark.parametrize("provider", [FeishuTenant, FeishuApp])
def test_a_refresh_that_has_no_effect_is_refused(provider: type[FeishuTenant]) -> None:
    """Before the renewal window the platform repeats the old token, so the rest of the time would be ignored."""
    assert 1620.0 == provider(app_id="a", app_secret="s", refresh_before=1620).refresh_before
    with pytest.raises(ConfigurationError, match=r"\(refresh_before=…\) must be at most 1620: until 1800 s before"):
        provider(app_id="a", app_secret="s", refresh_before=3600)
    assert 7200.0 == DingTalk(app_key="k", app_secret="s", corp_id="c", refresh_before=7200).refresh_before
