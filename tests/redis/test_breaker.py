"""The breaker counts failures of the server, and nothing else."""

from __future__ import annotations

import pytest

from tokenmw.redis.breaker import Breaker
from tokenmw.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Time that this file moves."""
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    """A closed breaker."""
    return Breaker(clock)


def fail(breaker: Breaker, clock: ManualClock, times: int = 1) -> list[bool]:
    """Let commands fail one after the other, each after a tenth of a second."""
    opened: list[bool] = []
    for _ in range(times):
        began = clock.monotonic()
        clock.advance(0.1)
        opened.append(breaker.failed("timeout", began=began))
    return opened


def test_the_third_failure_in_a_row_opens(breaker: Breaker, clock: ManualClock) -> None:
    """Only the one that opens says so, and commands are refused from then on."""
    assert fail(breaker, clock, 3) == [False, False, True]
    assert breaker.open
    assert breaker.since == clock.time()
    assert breaker.error == "timeout"
    assert fail(breaker, clock, 3) == [False, False, False]


def test_a_success_in_between_starts_the_count_again(breaker: Breaker, clock: ManualClock) -> None:
    """Two of three failures are forgotten; the success says that it was a recovery."""
    fail(breaker, clock, 2)
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert fail(breaker, clock, 2) == [False, False]
    assert not breaker.open


def test_a_failure_that_began_before_the_last_success_does_not_count(breaker: Breaker, clock: ManualClock) -> None:
    """The server has answered since; and its word is not told as the reason of anything."""
    began = clock.monotonic()
    clock.advance(0.1)
    breaker.succeeded()
    for _ in range(10):
        assert not breaker.failed("timeout", began=began)
    assert not breaker.open
    assert breaker.error == ""


def test_a_thousand_commands_under_way_are_one_failure(breaker: Breaker, clock: ManualClock) -> None:
    """What began before the last counted failure does not count."""
    began = clock.monotonic()
    clock.advance(0.1)
    for _ in range(1_000):
        assert not breaker.failed("timeout", began=began)
        clock.advance(0.001)
    assert not breaker.open
    assert fail(breaker, clock, 2) == [False, True]


def test_only_a_write_ends_a_row_of_refused_writes(breaker: Breaker, clock: ManualClock) -> None:
    """A full server answers reads: they came later than the refused write began, and say nothing of it."""
    began = clock.monotonic()
    for _ in range(2):
        began = clock.monotonic()
        clock.advance(0.1)
        assert not breaker.succeeded()
        assert not breaker.failed("full", began=began)
        assert not breaker.succeeded()
    assert breaker.succeeded(wrote=True)
    assert not breaker.failed("full", began=began)
    assert breaker._failures == 0
    assert fail(breaker, clock, 2) == [False, False]
    clock.advance(0.1)
    assert breaker.failed("readonly", began=clock.monotonic())


def test_what_was_under_way_when_it_closed_does_not_count(breaker: Breaker, clock: ManualClock) -> None:
    """Late failures of the outage do not open it again."""
    fail(breaker, clock, 3)
    began = clock.monotonic()
    clock.advance(1)
    breaker.close()
    assert not breaker.open
    assert breaker.error == ""
    assert breaker.since == clock.time()
    for _ in range(5):
        assert not breaker.failed("timeout", began=began)
    assert fail(breaker, clock, 3) == [False, False, True]


def test_a_late_success_does_not_close(breaker: Breaker, clock: ManualClock) -> None:
    """A reply that was on its way is no sign that the server takes writes; only the probe closes."""
    fail(breaker, clock, 3)
    assert not breaker.succeeded()
    assert breaker.open


def test_while_open_the_last_word_is_the_probes(breaker: Breaker, clock: ManualClock) -> None:
    """The operator sees what is wrong now, not what was wrong first."""
    fail(breaker, clock, 3)
    breaker.failed("readonly", began=clock.monotonic())
    assert breaker.error == "readonly"


def test_pauses_grow_to_five_seconds_and_are_spread(breaker: Breaker, clock: ManualClock) -> None:
    """From 0.25 s, doubling, less up to a quarter; anew for each outage."""
    for _outage in range(2):
        fail(breaker, clock, 3)
        for longest in (0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0):
            assert 0.75 * longest <= breaker.next_pause() <= longest
        breaker.close()
    fail(breaker, clock, 3)
    breakers = [Breaker(clock) for _ in range(20)]
    assert len({one.next_pause() for one in breakers}) > 10
