"""The log of the package: an outage is told at once, counted exactly, and floods nothing."""

from __future__ import annotations

import logging

import pytest

from tokenmw.observe.throttle import ThrottledLog
from tokenmw.testing import ManualClock


class Lines:
    """A throttled log, and what came out of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="tokenmw")
        self._caplog = caplog
        self.clock = ManualClock()
        self.log = ThrottledLog(self.clock)

    def down(self, word: str = "timeout") -> None:
        self.log.problem("redis", "Redis is away (%s).", word)

    def up(self) -> None:
        self.log.over("redis", "Redis is back.")

    def taken(self) -> list[str]:
        """Return the lines since the last call."""
        lines = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return lines

    def suppressed(self) -> list[int]:
        """Return the counts that the lines carry for machines."""
        return [record.__dict__["tokenmw.suppressed"] for record in self._caplog.records]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """A throttled log on a clock that the test moves."""
    return Lines(caplog)


@pytest.mark.parametrize("flushes", [True, False])
def test_flood_is_one_line_at_once_and_one_a_minute_with_exact_counts(lines: Lines, *, flushes: bool) -> None:
    """Ten minutes of 100 000 problems are 1 + 10 lines; lines and counts add up to all of them."""
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
    assert texts[0] == "Redis is away (timeout)."
    assert f"({counts[1]} more of the kind in the last 60 s.)" in texts[1]


def test_end_is_told_with_its_length_and_the_rest_of_the_count(lines: Lines) -> None:
    """One line when it is over; none if there was nothing, nor a second one."""
    lines.up()
    assert lines.taken() == []
    for _ in range(5):
        lines.down()
    lines.clock.advance(42.0)
    lines.up()
    lines.up()
    assert lines.taken() == [
        "Redis is away (timeout).",
        "Redis is back. It took 42 s; 4 more of the kind were not logged.",
    ]
    lines.clock.advance(200.0)
    lines.log.flush()
    assert lines.taken() == []


def test_length_is_from_the_first_problem_however_long_it_was_quiet(lines: Lines) -> None:
    """A provider is asked again after up to an hour: housekeeping in between forgets neither start nor end."""
    lines.down()
    for _ in range(60):
        lines.clock.advance(60.0)
        lines.log.flush()
    lines.down("full")
    lines.clock.advance(1.0)
    lines.up()
    assert lines.taken() == [
        "Redis is away (timeout).",
        "Redis is away (full).",
        "Redis is back. It took 3601 s; 0 more of the kind were not logged.",
    ]


def test_next_trouble_is_told_at_once(lines: Lines) -> None:
    """Who has read that Redis is back must learn at once that it is away again."""
    lines.down()
    lines.up()
    lines.taken()
    lines.clock.advance(10.0)
    lines.down("full")
    assert lines.taken() == ["Redis is away (full)."]


def test_flapping_does_not_flood(lines: Lines) -> None:
    """A server that fails every other command costs a few lines a minute, and no problem is lost from the counts."""
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
    begun = [text for text in texts if text.startswith("Redis is away")]
    assert len(texts) <= 10 * 8
    assert len(begun) + sum(counts) == 6_000
    assert texts[-1].startswith("Redis is back. It took")


def test_count_is_told_when_the_minute_is_over(lines: Lines) -> None:
    """If no further problem comes, housekeeping tells the count; the last text stands for all."""
    lines.down()
    lines.down("refused")
    lines.down("full")
    lines.clock.advance(59.0)
    lines.log.flush()
    assert lines.taken() == ["Redis is away (timeout)."]
    lines.clock.advance(1.0)
    lines.log.flush()
    lines.log.flush()
    assert lines.taken() == ["Redis is away (full). (1 more of the kind in the last 60 s.)"]


def test_kinds_do_not_hide_each_other(lines: Lines) -> None:
    """Each kind has its own minute."""
    lines.down()
    lines.log.problem("provider:crm", "%s: unavailable: %s", "crm", "busy")
    lines.log.problem("authenticate", "authenticate raised %s.", "ValueError")
    assert len(lines.taken()) == 3


def test_kinds_are_bounded(lines: Lines) -> None:
    """Were a kind ever made from a caller's input, memory and log would stay bounded all the same."""
    for number in range(10_000):
        lines.log.problem(f"kind-{number}", "Trouble %d.", number)
    assert len(lines.log._troubles) <= 257
    counts = lines.suppressed()
    assert len(counts) <= 257
    lines.taken()
    lines.clock.advance(60.0)
    lines.log.flush()
    assert len(counts) + sum(counts) + len(lines.suppressed()) + sum(lines.suppressed()) == 10_000
    # And they are not kept for ever: the next kind has a name of its own again.
    lines.clock.advance(86_400.0)
    lines.log.flush()
    assert len(lines.log._troubles) == 0


def test_text_without_arguments_may_hold_a_percent_sign(lines: Lines) -> None:
    """As with `logging` itself, a text is only formatted if there are arguments; also in the lines with counts."""
    for _ in range(2):
        lines.log.problem("disk", "The disk is 100% full.")
    lines.clock.advance(61.0)
    lines.log.problem("disk", "The disk is 100% full.")
    lines.log.over("disk", "The disk is below 90% again.")
    assert lines.taken() == [
        "The disk is 100% full.",
        "The disk is 100% full. (1 more of the kind in the last 61 s.)",
        "The disk is below 90% again. It took 61 s; 0 more of the kind were not logged.",
    ]
