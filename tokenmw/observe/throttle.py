"""A log that an outage cannot flood: the first line immediately, then one a minute with an exact count."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = ["LOGGER", "ThrottledLog", "warn"]

LOGGER: Final = logging.getLogger("tokenmw")
_PREFIX: Final = "tokenmw: "  # `logging` prints the message alone if the program has configured no format
_INTERVAL: Final = 60.0  # seconds between two lines of one kind
_FIRST_LINES: Final = 3  # new problems of one kind logged immediately in an interval; a flapping server is counted
# Seconds without a message until a kind is forgotten. Longer than any backoff, so that a recovery finds its problem.
_FORGET_AFTER: Final = 7200.0
_MAX_KINDS: Final = 256  # kinds are made from this package's names and provider names, never from callers' input
_OTHER_KINDS: Final = "other"


_Message: TypeAlias = tuple[str, tuple[object, ...], dict[str, str]]


class _Problem:
    """The state of one kind; kept for a while after the problem is over.

    Attributes:
        since: When the problem began, even if that was only counted.
        until: When it was over last.
        last_line: When a line was logged last.
        last_seen: When the problem was reported last.
        suppressed: The number of messages since the last line.
        message: The text, arguments and fields of the line that will carry that number.
        announced: Whether its beginning was logged; only then is its recovery logged immediately.
        recovered: Whether it is over.
        interval_start: When the interval began in which `first_lines` are counted.
        first_lines: The number of beginnings logged in that interval.
    """

    __slots__ = (
        "announced",
        "first_lines",
        "interval_start",
        "last_line",
        "last_seen",
        "message",
        "recovered",
        "since",
        "suppressed",
        "until",
    )

    def __init__(self, now: float) -> None:
        self.since = self.until = self.last_line = self.last_seen = self.interval_start = now
        self.suppressed = self.first_lines = 0
        self.message: _Message = ("", (), {})
        self.recovered = True
        self.announced = False


class ThrottledLog:
    """Logs problems by kind: the first immediately, then at most one line a minute, and one line on recovery.

    A problem that comes back after a recovery is logged immediately too, at most three times a minute. Texts have no
    full stop at the end: the log appends counts and durations.

    >>> log.problem("redis", "Redis unavailable (%s)", "timeout")   # "tokenmw: Redis unavailable (timeout)"
    >>> log.problem("redis", "Redis unavailable (%s)", "timeout")   # counted
    >>> log.recovered("redis", "Redis recovered")      # "tokenmw: Redis recovered after 2 s (…)"
    """

    __slots__ = ("_clock", "_problems", "_sorts")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._problems: dict[tuple[str, str], _Problem] = {}
        self._sorts: dict[str, tuple[str, ...]] = {}  # of each kind that has any

    def problem(self, kind: str, text: str, *args: object, sort: str = "", **fields: str) -> None:
        """Log or count one problem. `text` and `args` are as for `logging`, and contain no secret.

        Problems of one kind that differ in `sort` are logged and counted apart, and are over together. `fields` are
        facts for programs that read the log, such as `provider`, `server` and `reason`. The log record has each as
        `tokenmw.<field>`.
        """
        now = self._clock.monotonic()
        if (kind, sort) not in self._problems and len(self._problems) >= _MAX_KINDS:
            kind, sort = _OTHER_KINDS, ""
        problem = self._problems.get((kind, sort))
        if problem is None:
            problem = self._problems[kind, sort] = _Problem(now)
            if sort:
                self._sorts[kind] = (*self._sorts.get(kind, ()), sort)
        problem.last_seen = now
        if now - problem.interval_start >= _INTERVAL:
            problem.interval_start, problem.first_lines = now, 0
        begins = problem.recovered and not problem.suppressed and problem.first_lines < _FIRST_LINES
        if problem.recovered:
            problem.since = now
        problem.recovered = False
        if begins:
            problem.first_lines += 1
        elif now - problem.last_line < _INTERVAL:
            problem.suppressed += 1
            problem.message = (text, args, fields)
            return
        problem.announced = True
        self._log_problem(kind, problem, now, (text, args, fields))

    def event(self, kind: str, text: str, *args: object, **fields: str) -> None:
        """Log an event that is no problem, at level INFO and not throttled: the caller knows that it is rare."""
        line = _PREFIX + text
        extra: dict[str, object] = {f"tokenmw.{name}": value for name, value in fields.items() if value}
        LOGGER.info(line, *args, extra=extra | {"tokenmw.kind": kind})

    def recovered(self, kind: str, text: str, *args: object, **fields: str) -> None:
        """Log that a problem is over, its duration and the suppressed messages; nothing if there was no problem.

        If its beginning was only counted, `flush` logs the recovery, together with the count.
        """
        problem = self._problems.get((kind, ""))
        if kind in self._sorts:
            problem = self._merged(kind)
        if problem is None or problem.recovered:
            return
        problem.recovered = True
        problem.until = self._clock.monotonic()
        if problem.announced:
            self._log_recovery(kind, problem, problem.until, (text, args, fields))
        else:
            problem.message = (text, args, fields)

    def is_problem(self, kind: str) -> bool:
        """Return whether a problem of this kind was reported, and is not over."""
        problems = [self._problems.get((kind, sort)) for sort in ("", *self._sorts.get(kind, ()))]
        return any(problem is not None and not problem.recovered for problem in problems)

    def since(self, kind: str) -> float | None:
        """Return the monotonic time at which a problem of this kind began; None if there is none."""
        problems = [self._problems.get((kind, sort)) for sort in ("", *self._sorts.get(kind, ()))]
        begun = [problem.since for problem in problems if problem is not None and not problem.recovered]
        return min(begun, default=None)

    def flush(self) -> None:
        """Log the counts that are due, and forget kinds without recent messages. Called by housekeeping."""
        now = self._clock.monotonic()
        for (kind, sort), problem in list(self._problems.items()):
            if now - problem.last_line < _INTERVAL:
                continue
            if problem.suppressed and problem.recovered:
                self._log_recovery(kind, problem, now, problem.message)
            elif problem.suppressed:
                problem.suppressed -= 1  # the line itself is one of the counted messages
                problem.announced = True
                self._log_problem(kind, problem, now, problem.message)
            elif problem.recovered or now - problem.last_seen >= _FORGET_AFTER:
                del self._problems[kind, sort]
                if sort:
                    self._forget(kind, sort)

    def _merged(self, kind: str) -> _Problem | None:
        """End all problems of a kind but the first, which takes over their counts; return the first."""
        sorted_ = [self._problems.get((kind, sort)) for sort in ("", *self._sorts[kind])]
        ongoing = [problem for problem in sorted_ if problem is not None and not problem.recovered]
        if not ongoing:
            return None
        first = min(ongoing, key=lambda problem: problem.since)
        for problem in ongoing:
            if problem is not first:
                first.suppressed += problem.suppressed
                first.announced |= problem.announced
                problem.recovered, problem.announced, problem.suppressed = True, False, 0
                problem.until = self._clock.monotonic()
        return first

    def _forget(self, kind: str, sort: str) -> None:
        left = tuple(one for one in self._sorts[kind] if one != sort)
        if left:
            self._sorts[kind] = left
        else:
            del self._sorts[kind]

    def _log_problem(self, kind: str, problem: _Problem, now: float, message: _Message) -> None:
        text, args, fields = message
        count = problem.suppressed
        if count:
            text = _with_suffix(text, args, f" (%d similar {_messages(count)} suppressed in the last %.0f s)")
            args = (*args, count, now - problem.last_line)
        self._log(kind, problem, now, (text, args, fields))

    def _log_recovery(self, kind: str, problem: _Problem, now: float, message: _Message) -> None:
        text, args, fields = message
        count, duration = problem.suppressed, problem.until - problem.since
        text, args = _with_suffix(text, args, " after %.0f s"), (*args, duration)
        if count:
            text, args = f"{text} (%d similar {_messages(count)} suppressed)", (*args, count)
        problem.announced = False
        self._log(kind, problem, now, (text, args, fields), duration=duration)

    def _log(
        self, kind: str, problem: _Problem, now: float, message: _Message, *, duration: float | None = None
    ) -> None:
        text, args, fields = message
        line = _PREFIX + text
        extra: dict[str, object] = {f"tokenmw.{name}": value for name, value in fields.items()}
        extra |= {"tokenmw.kind": kind, "tokenmw.suppressed": problem.suppressed}
        if duration is not None:
            extra["tokenmw.duration"] = duration
        problem.suppressed = 0
        problem.last_line = now
        LOGGER.warning(line, *args, extra=extra)


def warn(kind: str, text: str) -> None:
    """Log a fact about the program's configuration, once: the caller knows when."""
    line = _PREFIX + text
    LOGGER.warning(line, extra={"tokenmw.kind": kind})


def _with_suffix(text: str, args: tuple[object, ...], suffix: str) -> str:
    # `logging` does not format a text without arguments, so a percent sign in it stands for itself. With the suffix
    # there are arguments.
    return (text if args else text.replace("%", "%%")) + suffix


def _messages(count: int) -> str:
    return "message" if count == 1 else "messages"
