"""The package's log: an outage is logged immediately, counted exactly, and does not flood the log."""

from __future__ import annotations

import logging

import pytest

from tokenmw.observe.throttle import ThrottledLog, warn
from tokenmw.testing import ManualClock


class Lines:
    """A throttled log, and what it logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="tokenmw")
        self._caplog = caplog
        self.clock = ManualClock()
        self.log = ThrottledLog(self.clock)

    def down(self, reason: str = "timeout") -> None:
        self.log.problem("redis", "Redis unavailable (%s)", reason)

    def up(self) -> None:
        self.log.recovered("redis", "Redis recovered")

    def taken(self) -> list[str]:
        """Return the lines since the last call."""
        lines = [record.getMessage().removeprefix("tokenmw: ") for record in self._caplog.records]
        self._caplog.clear()
        return lines

    def suppressed(self) -> list[int]:
        """Return the count of suppressed messages in each line's `extra`."""
        return [record.__dict__["tokenmw.suppressed"] for record in self._caplog.records]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """A throttled log on a manual clock."""
    return Lines(caplog)


@pytest.mark.parametrize("flushes", [True, False])
def test_flood_is_one_line_immediately_and_one_a_minute_with_exact_counts(lines: Lines, *, flushes: bool) -> None:
    """Ten minutes with 100 000 problems are 1 + 10 lines; lines and counts add up to 100 000."""
    for number in range(100_000):
        lines.down()
        lines.clock.advance(0.006)
        if flushes and number % 167 == 0:
            lines.log.flush()
    lines.clock.advance(60.0)
    lines.log.flush()
    counts = lines.suppressed()
    assert len(counts) == 11
    assert len(counts) + sum(counts) == 100_000
    texts = lines.taken()
    assert texts[0] == "Redis unavailable (timeout)"
    assert texts[1] == f"Redis unavailable (timeout) ({counts[1]} similar messages suppressed in the last 60 s)"


def test_recovery_is_logged_with_duration_and_count(lines: Lines) -> None:
    """A recovery is one line; without a problem, or for the second time, it is none."""
    lines.up()
    assert lines.taken() == []
    for _ in range(5):
        lines.down()
    lines.clock.advance(42.0)
    lines.up()
    lines.up()
    assert lines.taken() == [
        "Redis unavailable (timeout)",
        "Redis recovered after 42 s (4 similar messages suppressed)",
    ]
    lines.clock.advance(200.0)
    lines.log.flush()
    assert lines.taken() == []


def test_duration_counts_from_the_first_problem_of_a_long_outage(lines: Lines) -> None:
    """A provider may be asked only once an hour: housekeeping in between does not forget when the problem began."""
    lines.down()
    for _ in range(60):
        lines.clock.advance(60.0)
        lines.log.flush()
    lines.down("full")
    lines.clock.advance(1.0)
    lines.up()
    assert lines.taken() == [
        "Redis unavailable (timeout)",
        "Redis unavailable (full)",
        "Redis recovered after 3601 s",
    ]


def test_next_outage_is_logged_immediately(lines: Lines) -> None:
    """An operator who has read that Redis recovered must see at once that it is unavailable again."""
    lines.down()
    lines.up()
    lines.taken()
    lines.clock.advance(10.0)
    lines.down("full")
    assert lines.taken() == ["Redis unavailable (full)"]


def test_flapping_does_not_flood(lines: Lines) -> None:
    """A server that fails every other command causes a few lines a minute, and the counts stay exact."""
    for _ in range(6_000):
        lines.down()
        lines.clock.advance(0.05)
        lines.up()
        lines.clock.advance(0.05)
        lines.log.flush()
    for _ in range(3):
        lines.clock.advance(60.0)
        lines.log.flush()
    counts = lines.suppressed()
    texts = lines.taken()
    problems = [text for text in texts if text.startswith("Redis unavailable")]
    assert len(texts) <= 10 * 8
    assert len(problems) + sum(counts) == 6_000
    assert texts[-1].startswith("Redis recovered after ")


def test_duration_is_that_of_the_last_outage_only(lines: Lines) -> None:
    """Beginnings that were only counted have a time, too, and so has an end that is logged a minute later."""
    for _ in range(4):  # the beginning of the fourth one is only counted
        lines.down()
        lines.clock.advance(5.0)
        lines.up()
        lines.clock.advance(10.0)
    assert lines.taken()[-1].startswith("Redis recovered after 5 s")
    lines.clock.advance(60.0)
    lines.log.flush()
    assert lines.taken() == ["Redis recovered after 5 s (1 similar message suppressed)"]
    for _ in range(4):
        lines.down()
        lines.up()
    lines.down()
    lines.clock.advance(3600.0)
    lines.log.flush()
    lines.taken()
    lines.up()
    assert lines.taken() == ["Redis recovered after 3600 s"]


def test_count_is_logged_when_the_minute_is_over(lines: Lines) -> None:
    """Without a further problem, housekeeping logs the count with the last text."""
    lines.down()
    lines.down("refused")
    lines.down("full")
    lines.clock.advance(59.0)
    lines.log.flush()
    assert lines.taken() == ["Redis unavailable (timeout)"]
    lines.clock.advance(1.0)
    lines.log.flush()
    lines.log.flush()
    assert lines.taken() == ["Redis unavailable (full) (1 similar message suppressed in the last 60 s)"]


def test_kinds_are_throttled_separately(lines: Lines) -> None:
    """A line of one kind suppresses no line of another kind."""
    lines.down()
    lines.log.problem("provider:crm", "%s: unavailable: %s", "crm", "busy")
    lines.log.problem("authenticate", "authenticate raised %s", "ValueError")
    assert len(lines.taken()) == 3


def test_kinds_are_bounded(lines: Lines) -> None:
    """Memory and log stay bounded even if a kind were made from a caller's input."""
    for number in range(10_000):
        lines.log.problem(f"kind-{number}", "Problem %d", number)
    assert len(lines.log._problems) <= 257
    counts = lines.suppressed()
    assert len(counts) <= 257
    lines.taken()
    lines.clock.advance(60.0)
    lines.log.flush()
    assert len(counts) + sum(counts) + len(lines.suppressed()) + sum(lines.suppressed()) == 10_000
    # Old kinds are forgotten, so a new kind gets its own lines again.
    lines.clock.advance(86_400.0)
    lines.log.flush()
    assert len(lines.log._problems) == 0


def test_text_without_arguments_may_hold_a_percent_sign(lines: Lines) -> None:
    """As in `logging`, a text without arguments is not formatted, with or without a count."""
    for _ in range(2):
        lines.log.problem("disk", "The disk is 100% full")
    lines.clock.advance(61.0)
    lines.log.problem("disk", "The disk is 100% full")
    lines.log.recovered("disk", "The disk is below 90% again")
    assert lines.taken() == [
        "The disk is 100% full",
        "The disk is 100% full (1 similar message suppressed in the last 61 s)",
        "The disk is below 90% again after 61 s",
    ]


def test_line_names_the_package_and_its_record_has_fields(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """Each message begins with the package's name, and its record has the fields of the problem as attributes."""
    lines.log.problem("redis", "Redis unavailable (%s)", "timeout", server="10.0.0.5:6379", reason="timeout")
    lines.clock.advance(95.0)
    lines.log.recovered("redis", "Redis recovered", server="10.0.0.5:6379")
    warn("not-sealed", "Tokens are not sealed: 100 % readable")
    down, up, configured = caplog.records
    assert "tokenmw: Redis unavailable (timeout)" == down.getMessage()
    assert ("10.0.0.5:6379", "timeout") == (down.__dict__["tokenmw.server"], down.__dict__["tokenmw.reason"])
    assert "tokenmw.duration" not in down.__dict__
    assert "tokenmw: Redis recovered after 95 s" == up.getMessage()
    assert ("10.0.0.5:6379", 95.0) == (up.__dict__["tokenmw.server"], up.__dict__["tokenmw.duration"])
    assert "tokenmw: Tokens are not sealed: 100 % readable" == configured.getMessage()
    assert "not-sealed" == configured.__dict__["tokenmw.kind"]


def test_counted_line_has_the_fields_of_its_last_message(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """The line with a count carries the fields of the message that it repeats."""
    for reason in ("timeout", "full"):
        lines.log.problem("redis", "Redis unavailable (%s)", reason, reason=reason)
    lines.clock.advance(60.0)
    lines.log.flush()
    assert ["timeout", "full"] == [record.__dict__["tokenmw.reason"] for record in caplog.records]


def test_sorts_of_one_kind_are_counted_apart_and_are_over_together(lines: Lines) -> None:
    """A kind that was forgotten begins anew."""
    for _ in range(2):
        for sort in ("", "permanent", "other"):
            for _ in range(3):
                lines.log.problem("idp", "Failed: %s", sort or "busy", sort=sort)
        assert ["Failed: busy", "Failed: permanent", "Failed: other"] == lines.taken()
        lines.clock.advance(30.0)
        lines.log.recovered("idp", "Works again")
        lines.log.recovered("idp", "Works again")
        assert ["Works again after 30 s (6 similar messages suppressed)"] == lines.taken()
        lines.clock.advance(61.0)
        lines.log.flush()
        assert [] == lines.taken()


def test_the_recovery_of_one_sort_leaves_no_count(lines: Lines) -> None:
    """What the first line of recovery counted is not counted again."""
    lines.log.problem("idp", "Failed", sort="permanent")
    lines.log.recovered("idp", "Works again")
    lines.log.problem("idp", "Failed")
    lines.log.recovered("idp", "Works again")
    assert ["Failed", "Works again after 0 s", "Failed", "Works again after 0 s"] == lines.taken()


def test_the_begin_of_a_problem_is_that_of_its_first_sort(lines: Lines) -> None:
    """`since` is the time of the first message, whatever sorts have followed, and None before and afterwards."""
    assert lines.log.since("redis") is None
    began = lines.clock.monotonic()
    for sort in ("a", "", "b"):
        lines.log.problem("redis", "Redis unavailable (%s)", "timeout", sort=sort)
        lines.clock.advance(5)
    assert lines.log.since("redis") == began
    lines.up()
    assert lines.log.since("redis") is None
