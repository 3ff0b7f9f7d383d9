"""The lifetime of a token in a response that says it in another way than RFC 6749."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.providers.answer import Answer
from tokenmw.providers.expiry import remaining_seconds, time_of
from tokenmw.values import MAX_LIFETIME

NOW = 1709596800  # Tue, 05 Mar 2024 00:00:00 GMT
DATE = "Tue, 05 Mar 2024 00:00:00 GMT"


def seconds(fields: dict[str, Any], *, date: str = DATE, **options: Any) -> float:
    """Return the lifetime in a response that was sent on 5 March 2024."""
    return remaining_seconds(Answer(200, headers={"date": date} if date else {}), fields, **options)


@pytest.mark.parametrize(
    "raw",
    [
        *(NOW + 3600, str(NOW + 3600), (NOW + 3600) * 1000, str((NOW + 3600) * 1000)),
        *(
            "2024-03-05T01:00:00Z",
            "2024-03-05T01:00:00",
            "2024-03-05T02:00:00+01:00",
            "2024-03-05 01:00:00.0000000+00:00",
        ),
        *(
            "3/5/2024 1:00:00 AM +00:00",
            "03/05/2024 01:00:00 +00:00",
            "03/05/2024 02:00:00 +01:00",
            "3/5/2024 1:00:00 AM",
        ),
    ],
)
@pytest.mark.parametrize("name", ["expires_on", "expires_at", "expires"])
def test_time_of_expiry_is_read_in_every_usual_form(name: str, raw: object) -> None:
    """Epoch, ISO 8601 and .NET's two forms, by the clock of the response."""
    assert 3600.0 == seconds({name: raw}, default=600.0)
    assert 3600.0 == seconds({name: raw, "expires_in": 0}) == seconds({name: raw, "expires_in": ""})
    assert 60.0 == seconds({name: raw, "expires_in": "60"})


def test_twelve_o_clock_is_noon_or_midnight() -> None:
    """12 AM is the first hour of the day."""
    assert [NOW, NOW + 43200, NOW + 61200] == [
        time_of(f"3/5/2024 {hour} +00:00") for hour in ("12:00:00 AM", "12:00:00 PM", "5:00:00 PM")
    ]


def test_without_a_date_the_clock_of_this_machine_counts() -> None:
    """The response has no `Date`."""
    assert 3600.0 == pytest.approx(seconds({"expires_at": SYSTEM_CLOCK.time() + 3600}, date=""), abs=30)


def test_small_number_as_expires_is_a_lifetime() -> None:
    """Some servers send the seconds under that name."""
    assert 5183999.0 > MAX_LIFETIME == seconds({"expires": 5183999})
    assert 3600.0 == seconds({"expires": "3600"})


@pytest.mark.parametrize("fields", [{"expires_at": NOW}, {"expires_on": "1"}, {"expires_at": "2024-03-04T00:00:00Z"}])
def test_time_in_the_past_is_an_expired_token(fields: dict[str, Any]) -> None:
    """The default is for responses that do not say."""
    for given_fields in (fields, {**fields, "expires_in": 0}):
        with pytest.raises(TokenUnavailable, match=r"\(expires_(at|on)\) .* already expired"):
            seconds(given_fields, default=600.0, zero_is_default=True)


@pytest.mark.parametrize("raw", ["soon", "", None, True, [], {}, "13/45/2024 25:00:00 PM", "9" * 70, "nan"])
def test_what_is_no_time_counts_as_missing(raw: object) -> None:
    """Such a field may mean something else."""
    assert time_of(raw) is None
    assert 600.0 == seconds({"expires_at": raw}, default=600.0)
    with pytest.raises(TokenUnavailable, match="does not say how long the token lives: expires_in is missing"):
        seconds({"expires_at": raw})


def test_zero_is_an_expired_token_unless_it_means_the_default() -> None:
    """Mailchimp and VK send it for tokens without an expiry, Spring for a token that expires now."""
    with pytest.raises(TokenUnavailable, match="already expired"):
        seconds({"expires_in": 0}, default=600.0)
    assert 600.0 == seconds({"expires_in": 0}, default=600.0, zero_is_default=True)
    assert 600.0 == seconds({"expires_in": "0"}, default=600.0, zero_is_default=True)
    with pytest.raises(TokenUnavailable, match="already expired"):
        seconds({"expires_in": -1}, default=600.0, zero_is_default=True)


@settings(deadline=None)
@given(
    st.floats()
    | st.text()
    | st.integers()
    | st.datetimes().map(str)
    | st.datetimes().map(lambda at: f"{at:%m/%d/%Y %H:%M:%S} PM")
)
def test_any_value_is_a_time_or_none(raw: object) -> None:
    """No value raises another error than ours."""
    found = time_of(raw)
    assert found is None or isinstance(found, float)
    try:
        left = seconds({"expires_at": raw})
    except TokenUnavailable:
        return
    assert 0 < left <= MAX_LIFETIME
