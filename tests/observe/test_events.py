"""Observers receive every event, and their errors affect nothing else."""

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
    """Make what the broker makes of its option `observers`."""
    return Observers(given, log=ThrottledLog(ManualClock()))


def test_all_observers_get_all_events_in_order() -> None:
    """Observers are called in the order in which they were given, with the event itself."""
    seen: list[tuple[str, Event]] = []

    def observer(name: str) -> Observer:
        return lambda event, /: seen.append((name, event))

    publish = observers(observer("a"), observer("b"))
    for event in EVENTS:
        publish(event)
    assert [(name, event) for event in EVENTS for name in "ab"] == seen


@pytest.mark.parametrize("event", EVENTS)
def test_event_is_a_frozen_value(event: Event) -> None:
    """An observer cannot change what the next one receives."""
    with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
        event.provider = "other"  # type: ignore[attr-defined]
    assert isinstance(event, Event)
    assert event in EVENTS


def test_error_of_an_observer_is_logged_and_affects_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """The next observer is called; the log has the error's class and place, not its text, once a minute."""
    seen: list[Event] = []

    def broken(_event: Event) -> None:
        raise ValueError("sk-live-1")

    publish = observers(broken, seen.append)
    with caplog.at_level(logging.DEBUG):
        for event in EVENTS:
            publish(event)
    assert seen == EVENTS
    line = broken.__code__.co_firstlineno + 1
    assert [record.getMessage() for record in caplog.records] == [
        f"tokenmw: An observer raised ValueError at {__name__}:{line}"
    ]
    assert "sk-live" not in caplog.text


async def awaited(_event: Event) -> None:
    """An observer that would have to be awaited."""


class Awaited:
    async def __call__(self, event: Event) -> None:
        """An observer that would have to be awaited."""


@pytest.mark.parametrize(
    ("given", "message"),
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
def test_unusable_observers_are_refused_at_construction(given: Any, message: str) -> None:
    """The error does not wait for the first event."""
    with pytest.raises(ConfigurationError, match=message):
        Observers(given, log=ThrottledLog(ManualClock()))
