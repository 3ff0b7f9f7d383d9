"""Observers receive every event, and their errors affect nothing else."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from tokenmw import observe
from tokenmw.errors import ConfigurationError
from tokenmw.observe import (
    BrokerClosed,
    BrokerOpened,
    CallerRefused,
    CommitRefused,
    ConnectionChanged,
    Event,
    FailureAdopted,
    LeaseChanged,
    Observer,
    OperatorActed,
    RedisCommandFinished,
    RedisStateChanged,
    RefreshEnded,
    RefreshStarted,
    SessionReset,
    SessionResolved,
    SessionsMade,
    SessionsReplaced,
    SharedStateChanged,
    StateSampled,
    TokenAdopted,
    TokenFetched,
    TokenInvalidated,
    TokenServed,
    TokenWaiting,
    Uploaded,
    ValueUnreadable,
)
from tokenmw.observe.observers import Observers
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.testing import ManualClock

EVENTS: list[Event] = [
    BrokerOpened(1, ("crm",), shared=True, version="0.1.0"),
    TokenWaiting("crm", 7),
    RefreshStarted("crm", 7),
    LeaseChanged("crm", "won"),
    LeaseChanged("crm", "taken_over"),
    TokenFetched("crm", "granted", 0.5),
    CommitRefused("crm", "newer"),
    TokenAdopted("crm"),
    RefreshEnded("crm", 7, "renewed", 0.6),
    TokenServed("crm", "waited", seconds=0.25),
    TokenServed("crm", "hit", count=40),
    FailureAdopted("crm", "provider", writer="host:17"),
    TokenInvalidated("crm"),
    TokenInvalidated("crm", "operator"),
    Uploaded("token", 3),
    ConnectionChanged("mail", "reconnect", "invalid_grant"),
    SessionResolved("local", 50),
    SessionsMade(4),
    SessionsReplaced(2),
    SessionReset(),
    CallerRefused("missing", 5),
    SharedStateChanged(up=False, error="timeout"),
    OperatorActed("retry", "crm"),
    RedisStateChanged("10.0.0.5:6379", up=False, error="timeout"),
    RedisCommandFinished("acquire", 0.125, "timeout"),
    SharedStateChanged(up=True),
    ValueUnreadable("token", "damaged"),
    StateSampled(
        1,
        expiries={"crm": 2_000.0},
        attempts={"crm": 1_500.0},
        failing={"crm": {"rejected": 1}, "tenants": {"unanswered": 6}},
        nodes={"10.0.0.5:6379": True},
        connections={"in_use": 2, "waiting": 0},
        unshared={"token": 1, "tombstone": 0, "session": 9},
        lag=0.002,
    ),
]
VALUES: dict[tuple[object, ...], float] = {
    ("tokenmw_build_info", ("version", "0.1.0")): 1,
    ("tokenmw_lease_takeovers_total", ("provider", "crm")): 1,
    ("tokenmw_token_fetches_total", ("outcome", "granted"), ("provider", "crm")): 1,
    ("tokenmw_token_fetch_duration_seconds", ("outcome", "granted"), ("provider", "crm")): 0.5,
    ("tokenmw_commits_refused_total", ("provider", "crm"), ("reason", "newer")): 1,
    ("tokenmw_tokens_adopted_total", ("provider", "crm")): 1,
    ("tokenmw_token_requests_total", ("provider", "crm"), ("result", "waited")): 1,
    ("tokenmw_token_requests_total", ("provider", "crm"), ("result", "hit")): 40,
    ("tokenmw_token_wait_seconds", ("provider", "crm")): 0.25,
    ("tokenmw_failures_adopted_total", ("provider", "crm"), ("reason", "provider")): 1,
    ("tokenmw_tokens_invalidated_total", ("cause", "api"), ("provider", "crm")): 1,
    ("tokenmw_tokens_invalidated_total", ("cause", "operator"), ("provider", "crm")): 1,
    ("tokenmw_uploads_total", ("kind", "token")): 3,
    ("tokenmw_connection_changes_total", ("provider", "mail"), ("state", "reconnect")): 1,
    ("tokenmw_sessions_resolved_total", ("source", "local")): 50,
    ("tokenmw_sessions_made_total",): 4,
    ("tokenmw_session_ids_replaced_total",): 2,
    ("tokenmw_sessions_reset_total",): 1,
    ("tokenmw_callers_refused_total", ("reason", "missing")): 5,
    ("tokenmw_shared_up",): 1,
    ("tokenmw_shared_changes_total",): 2,
    ("tokenmw_redis_breaker_changes_total", ("to", "open")): 1,
    ("tokenmw_redis_command_duration_seconds", ("operation", "acquire")): 0.125,
    ("tokenmw_redis_errors_total", ("error", "timeout"), ("operation", "acquire")): 1,
    ("tokenmw_unreadable_values_total", ("kind", "token"), ("why", "damaged")): 1,
    ("tokenmw_token_expiry_timestamp_seconds", ("provider", "crm")): 2_000,
    ("tokenmw_token_next_attempt_timestamp_seconds", ("provider", "crm")): 1_500,
    ("tokenmw_provider_failing_credentials", ("provider", "crm"), ("reason", "rejected")): 1,
    ("tokenmw_provider_failing_credentials", ("provider", "tenants"), ("reason", "unanswered")): 6,
    ("tokenmw_redis_up", ("node", "10.0.0.5:6379")): 1,
    ("tokenmw_redis_connections", ("state", "in_use")): 2,
    ("tokenmw_unshared", ("kind", "token")): 1,
    ("tokenmw_unshared", ("kind", "session")): 9,
    ("tokenmw_event_loop_lag_seconds",): 0.002,
}
"""What the events count, in Prometheus; of histograms the sum. All other series are 0."""


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


def test_all_classes_of_events_are_in_the_list() -> None:
    """What the list has, each observer is tested with; the end of a broker has no metric."""
    classes = {getattr(observe, name) for name in observe.__all__} - {Event, Observer, BrokerClosed}
    assert classes == set(map(type, EVENTS))


def test_counts_are_published_together() -> None:
    """Frequent events are one event with their number; without an observer nothing is counted."""
    seen: list[Event] = []
    publish = observers(seen.append)
    for _ in range(3):
        publish.count(TokenServed, "crm", "hit")
    publish.count(TokenServed, "crm", "hit", by=0)
    publish.count(SessionsMade, by=2)
    assert [] == seen
    publish.flush()
    publish.flush()
    assert [TokenServed("crm", "hit", 3), SessionsMade(2)] == seen
    nobody = observers()
    nobody.count(TokenServed, "crm", "hit")
    assert not nobody.active
    assert 0 == len(nobody._counts)


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
