"""Observers are told what happens, and can do no harm."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.observe import (
    Event,
    Observer,
    SharedStateChanged,
    TokenAdopted,
    TokenFetched,
    TokenInvalidated,
    ValueUnreadable,
)
from tokenmw.observe.events import Observers
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.testing import ManualClock

EVENTS: list[Event] = [
    TokenFetched("crm", "granted", 0.5),
    TokenAdopted("crm"),
    TokenInvalidated("crm"),
    SharedStateChanged(up=False, error="timeout"),
    SharedStateChanged(up=True),
    ValueUnreadable("token", "damaged"),
]


def observers(*given: Any) -> Observers:
    """Make what the broker makes of its option."""
    return Observers(given, log=ThrottledLog(ManualClock()))


def test_all_observers_get_all_events_in_order() -> None:
    """Each one in the order in which they were given, and each event as it is."""
    seen: list[tuple[str, Event]] = []

    def observer(name: str) -> Observer:
        return lambda event, /: seen.append((name, event))

    tell = observers(observer("a"), observer("b"))
    for event in EVENTS:
        tell(event)
    assert [(name, event) for event in EVENTS for name in "ab"] == seen


@pytest.mark.parametrize("event", EVENTS)
def test_event_is_a_frozen_value(event: Event) -> None:
    """One observer cannot change what the next one sees."""
    with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
        event.provider = "other"  # type: ignore[attr-defined]
    assert isinstance(event, Event)
    assert event in EVENTS


def test_observer_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the request nor the next observer; the log has the error's kind and place, no text, once a minute."""
    seen: list[Event] = []

    def broken(_event: Event) -> None:
        raise ValueError("sk-live-1")

    tell = observers(broken, seen.append)
    with caplog.at_level(logging.DEBUG):
        for event in EVENTS:
            tell(event)
    assert seen == EVENTS
    line = broken.__code__.co_firstlineno + 1
    assert [record.getMessage() for record in caplog.records] == [
        f"An observer raised ValueError at {__name__}:{line} and was passed over."
    ]
    assert "sk-live" not in caplog.text


async def awaited(_event: Event) -> None:
    """An observer that nobody would await."""


class Awaited:
    async def __call__(self, event: Event) -> None:
        """An observer that nobody would await."""


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (print, "list"),
        (None, "list"),
        ("print", r"observers\[0\]"),
        ([None], r"observers\[0\]"),
        ([print, "print"], r"observers\[1\]"),
        ([awaited], "async"),
        ([Awaited()], "async"),
    ],
)
def test_what_cannot_observe_is_refused_when_made(given: Any, complaint: str) -> None:
    """Not at the first event, when nobody looks."""
    with pytest.raises(ConfigurationError, match=complaint):
        Observers(given, log=ThrottledLog(ManualClock()))
