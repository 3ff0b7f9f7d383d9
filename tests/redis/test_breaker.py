"""The circuit breaker counts failures of the server, and nothing else."""

from __future__ import annotations

import pytest

from tokenmw.redis.breaker import Breaker
from tokenmw.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the breaker."""
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    """A closed breaker."""
    return Breaker(clock)


def fail(breaker: Breaker, clock: ManualClock, times: int = 1) -> list[bool]:
    """Record failures one after the other, each of a command that took a tenth of a second."""
    opened: list[bool] = []
    for _ in range(times):
        began = clock.monotonic()
        clock.advance(0.1)
        opened.append(breaker.failed("timeout", began=began))
    return opened


def test_third_failure_in_a_row_opens_the_circuit(breaker: Breaker, clock: ManualClock) -> None:
    """Only the failure that opens it returns True, and commands are refused from then on."""
    assert fail(breaker, clock, 3) == [False, False, True]
    assert breaker.open
    assert breaker.since == clock.time()
    assert breaker.error == "timeout"
    assert fail(breaker, clock, 3) == [False, False, False]


def test_success_resets_the_count(breaker: Breaker, clock: ManualClock) -> None:
    """After two failures and a success, two more do not open the circuit; the success returns True."""
    fail(breaker, clock, 2)
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert fail(breaker, clock, 2) == [False, False]
    assert not breaker.open


def test_failure_that_began_before_the_last_success_does_not_count(breaker: Breaker, clock: ManualClock) -> None:
    """The server has replied since; and the reason of such a failure is not reported."""
    began = clock.monotonic()
    clock.advance(0.1)
    breaker.succeeded()
    for _ in range(10):
        assert not breaker.failed("timeout", began=began)
    assert not breaker.open
    assert breaker.error == ""


def test_commands_that_were_running_together_are_one_failure(breaker: Breaker, clock: ManualClock) -> None:
    """A failure of a command that began before the last counted failure does not count."""
    began = clock.monotonic()
    clock.advance(0.1)
    for _ in range(1_000):
        assert not breaker.failed("timeout", began=began)
        clock.advance(0.001)
    assert not breaker.open
    assert fail(breaker, clock, 2) == [False, True]


def test_only_a_write_resets_the_count_of_refused_writes(breaker: Breaker, clock: ManualClock) -> None:
    """A full server replies to reads; that they came after the refused write began proves nothing about writes."""
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


def test_commands_that_ran_when_it_closed_do_not_count(breaker: Breaker, clock: ManualClock) -> None:
    """Late failures from the outage do not open the circuit again."""
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


def test_late_success_does_not_close_the_circuit(breaker: Breaker, clock: ManualClock) -> None:
    """A reply that was on its way does not show that the server takes writes; only a probe closes the circuit."""
    fail(breaker, clock, 3)
    assert not breaker.succeeded()
    assert breaker.open


def test_error_is_of_the_last_probe_while_open(breaker: Breaker, clock: ManualClock) -> None:
    """The operator sees the present reason, and not the first one."""
    fail(breaker, clock, 3)
    breaker.failed("readonly", began=clock.monotonic())
    assert breaker.error == "readonly"


def test_probe_delays_double_up_to_five_seconds_with_jitter(breaker: Breaker, clock: ManualClock) -> None:
    """They begin at 0.25 s in each outage after a calm time, and are up to a quarter shorter."""
    for _outage in range(2):
        clock.advance(3600)
        fail(breaker, clock, 3)
        for longest in (0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0):
            assert 0.75 * longest <= breaker.next_probe_delay() <= longest
        breaker.close()
    fail(breaker, clock, 3)
    breakers = [Breaker(clock) for _ in range(20)]
    assert len({one.next_probe_delay() for one in breakers}) > 10


def outage(breaker: Breaker, clock: ManualClock, *, after: float) -> float:
    """Open and close the circuit some seconds after it closed last; return the first delay, without jitter."""
    clock.advance(after)
    breaker.trip()
    delay = breaker._delay
    clock.advance(breaker.next_probe_delay())
    breaker.close()
    return delay


def test_outages_soon_after_each_other_have_longer_delays(breaker: Breaker, clock: ManualClock) -> None:
    """A server with a latency around the deadline made the circuit open and close 39 times in 40 s."""
    assert [outage(breaker, clock, after=0.5) for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_calm_time_makes_the_delays_short_again(breaker: Breaker, clock: ManualClock) -> None:
    """Between 10 and 20 s the delay stays as it was; each 10 s more halve it."""
    for _ in range(5):
        outage(breaker, clock, after=1.0)
    assert outage(breaker, clock, after=15.0) == 4.0
    assert outage(breaker, clock, after=25.0) == 2.0
    assert outage(breaker, clock, after=45.0) == 0.25
    assert outage(breaker, clock, after=3600.0) == 0.25


def test_error_has_its_time(breaker: Breaker, clock: ManualClock) -> None:
    """It is that of the last failure, and there is none after the circuit has closed."""
    assert (breaker.error, breaker.error_at) == ("", None)
    fail(breaker, clock, 1)
    assert breaker.error_at == clock.time()
    clock.advance(9.0)
    assert breaker.error_at == clock.time() - 9.0
    fail(breaker, clock, 2)
    clock.advance(1.0)
    breaker.failed("readonly", began=clock.monotonic())
    assert breaker.error == "readonly"
    assert breaker.error_at == clock.time()
    breaker.close()
    assert breaker.error == ""
    assert breaker.error_at is None
