"""What the status shows of the last hour is bounded and exact, and has nothing that identifies a tenant."""

from __future__ import annotations

import pytest

from tests.observe.test_events import EVENTS
from tokenmw.observe import (
    LeaseChanged,
    OperatorActed,
    RedisCommandFinished,
    RedisStateChanged,
    SessionReset,
    TokenAdopted,
    TokenFetched,
    TokenInvalidated,
)
from tokenmw.observe.recorder import HOUR, Hour, Recorder
from tokenmw.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def recorder(clock: ManualClock) -> Recorder:
    """A recorder."""
    return Recorder(clock)


def texts(recorder: Recorder) -> list[tuple[str, str, int]]:
    """Return subject, text and number of each event, the newest first."""
    return [(one.subject, one.text, one.times) for one in recorder.events]


def test_the_last_fifty_events_are_kept(recorder: Recorder, clock: ManualClock) -> None:
    """The newest first, with their times."""
    for number in range(120):
        clock.advance(1)
        recorder(TokenFetched(f"p{number}", "granted", 0.1))
    assert [f"p{number}" for number in range(119, 69, -1)] == [one.subject for one in recorder.events]
    assert clock.time() == recorder.events[0].at


def test_equal_events_in_a_row_are_one_line(recorder: Recorder) -> None:
    """With their number; the credential is that of all of them, or none."""
    for credential in ("a", "a", "b"):
        recorder(TokenFetched("crm", "rejected", 0.1, "rejected", credential))
    recorder(TokenInvalidated("crm", "instance", "a"))
    assert [
        ("crm", "token dropped: another instance invalidated it", 1),
        ("crm", "token request failed (rejected)", 3),
    ] == texts(recorder)
    assert ["a", ""] == [one.credential for one in recorder.events]


def test_each_kind_of_event_has_a_line_or_is_only_counted(recorder: Recorder) -> None:
    """Of the lease only a takeover is shown; hits and commands are counted elsewhere."""
    for event in EVENTS:
        recorder(event)
    assert len(recorder.events) == 12
    assert {one.level for one in recorder.events} == {"good", "warn", "bad", "info"}
    recorder(LeaseChanged("crm", "won"))
    recorder(RedisCommandFinished("acquire", 0.1))
    assert len(recorder.events) == 12
    recorder(OperatorActed("invalidate", "crm"))
    recorder(SessionReset())
    assert [("", "session of an API key reset", 1), ("crm", "an operator requested invalidate", 1)] == texts(recorder)[
        :2
    ]


def test_token_requests_are_counted_for_an_hour(recorder: Recorder, clock: ManualClock) -> None:
    """Each provider's own, with the 95th percentile of the last 100."""
    for number in range(100):
        recorder(TokenFetched("crm", "granted", number / 100))
    recorder(TokenAdopted("crm"))
    assert (100, 0.95) == recorder.fetches("crm")
    assert (0, None) == recorder.fetches("other")
    clock.advance(HOUR / 2)
    recorder(TokenFetched("crm", "rejected", 1.0))
    assert recorder.fetches("crm")[0] == 101
    clock.advance(HOUR / 2 + 60)
    assert (1, 1.0) == recorder.fetches("crm")
    clock.advance(10 * HOUR)
    assert (0, None) == recorder.fetches("crm")


def test_counting_is_exact_to_a_minute() -> None:
    """One a second is 3 600 an hour, however long it goes on."""
    hour = Hour()
    for second in range(10_000):
        hour.add(5.0 + second)
    assert 3540 <= hour.total(10_005.0) <= 3600


def test_outages_of_the_last_hour_are_kept(recorder: Recorder, clock: ManualClock) -> None:
    """Each server's own, with beginning and end; one that goes on has no end."""
    began = clock.time()
    recorder(RedisStateChanged("a:1", up=True))  # an end without a beginning
    recorder(RedisStateChanged("a:1", up=False, error="timeout"))
    recorder(RedisStateChanged("a:1", up=False, error="refused"))
    clock.advance(30)
    recorder(RedisStateChanged("a:1", up=True))
    clock.advance(30)
    recorder(RedisStateChanged("a:1", up=False, error="timeout"))
    assert [(began, began + 30), (began + 60, None)] == recorder.outages("a:1")
    assert [] == recorder.outages("b:1")
    clock.advance(HOUR)
    assert [(began + 60, None)] == recorder.outages("a:1")


def test_commands_are_counted_with_their_durations_and_failures(recorder: Recorder) -> None:
    """Failures by reason; durations are those of answers."""
    for number in range(100):
        recorder(RedisCommandFinished("acquire", number / 1000))
    recorder(RedisCommandFinished("acquire", 9.0, "timeout"))
    assert 101 == recorder.commands.total(0.0)
    assert (0.05, 0.095) == (recorder.commands.percentile(0.5, 0.0), recorder.commands.percentile(0.95, 0.0))
    assert {"timeout": 1} == {reason: hour.total(0.0) for reason, hour in recorder.command_errors.items()}


def test_memory_is_bounded(recorder: Recorder) -> None:
    """Of names, servers, reasons and outages, the first ones are kept, or the last."""
    for number in range(3_000):
        recorder(TokenFetched(f"p{number}", "granted", 0.1))
        recorder(RedisCommandFinished("acquire", 0.1, f"r{number}"))
        for up in (False, True):
            recorder(RedisStateChanged(f"n{number}", up=up))
            recorder(RedisStateChanged("n1", up=up))
    sizes = [len(kept) for kept in (recorder.events, recorder._fetches, recorder.command_errors, recorder._outages)]
    assert [50, 1_000, 32, 64] == sizes
    assert len(recorder.outages("n1")) == 60
