"""Logging that an outage cannot flood: one line at once, then one a minute with the exact count of the rest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = ["LOGGER", "ThrottledLog"]

LOGGER: Final = logging.getLogger("tokenmw")
_EVERY: Final = 60.0  # seconds between two lines of one kind
_BEGINNINGS: Final = 3  # troubles of one kind told at once in that time; what flaps faster is counted
_FORGET: Final = 7200.0  # seconds; longer than any pause between two attempts, so that an end finds its beginning
_KINDS: Final = 256  # kinds told apart; they are words of this package and provider names, not callers' input
_REST: Final = "other"


class _Trouble:
    """One kind's trouble, also for a while after its end.

    Attributes:
        since: When it began.
        logged: When a line was logged last.
        seen: When it happened last.
        suppressed: How often it happened without a line since then.
        line: What is to be logged with the count: its text and arguments.
        told: Whether its beginning has been logged, so that its end is, too.
        ended: Whether it is over.
        minute: When the minute began in which beginnings are counted.
        beginnings: How many there were in it.
    """

    __slots__ = ("beginnings", "ended", "line", "logged", "minute", "seen", "since", "suppressed", "told")

    def __init__(self, now: float) -> None:
        self.since = self.logged = self.seen = self.minute = now
        self.suppressed = self.beginnings = 0
        self.line: tuple[str, tuple[object, ...]] = ("", ())
        self.ended = True
        self.told = False


class ThrottledLog:
    """Logs troubles by kind: the first at once, then at most one line a minute, and one when it is over.

    A trouble that comes back after its end is told at once, too, three times a minute at most.

    >>> log.problem("redis", "Redis is away (%s).", "timeout")   # logged
    >>> log.problem("redis", "Redis is away (%s).", "timeout")   # counted
    >>> log.over("redis", "Redis is back.")                      # "Redis is back. It took 0 s; 1 more … not logged."
    """

    __slots__ = ("_clock", "_troubles")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}

    def problem(self, kind: str, text: str, *args: object) -> None:
        """Log or count one trouble. `text` and `args` are as for `logging`, and hold no secret."""
        now = self._clock.monotonic()
        if kind not in self._troubles and len(self._troubles) >= _KINDS:
            kind = _REST
        trouble = self._troubles.get(kind)
        if trouble is None:
            trouble = self._troubles[kind] = _Trouble(now)
        trouble.seen = now
        if now - trouble.minute >= _EVERY:
            trouble.minute, trouble.beginnings = now, 0
        begins = trouble.ended and not trouble.suppressed and trouble.beginnings < _BEGINNINGS
        if begins:
            trouble.since = now
            trouble.beginnings += 1
        elif now - trouble.logged < _EVERY:
            trouble.suppressed += 1
            trouble.line = (text, args)
            trouble.ended = False
            return
        trouble.ended, trouble.told = False, True
        self._log(kind, trouble, now, text, args)

    def over(self, kind: str, text: str, *args: object) -> None:
        """Log that a trouble has ended, with its length and what was not logged; nothing if there was none.

        The end of one that was only counted is logged by `flush`, with the count.
        """
        trouble = self._troubles.get(kind)
        if trouble is None or trouble.ended:
            return
        now = self._clock.monotonic()
        trouble.ended = True
        if trouble.told:
            self._log_end(kind, trouble, now, text, args)
        else:
            trouble.line = (text, args)

    def flush(self) -> None:
        """Log the counts that are due, and forget kinds that have been quiet. Called by housekeeping."""
        now = self._clock.monotonic()
        for kind, trouble in list(self._troubles.items()):
            if now - trouble.logged < _EVERY:
                continue
            text, args = trouble.line
            if trouble.suppressed and trouble.ended:
                self._log_end(kind, trouble, now, text, args)
            elif trouble.suppressed:
                trouble.suppressed -= 1  # the line that comes now tells of one itself
                trouble.told = True
                self._log(kind, trouble, now, text, args)
            elif trouble.ended or now - trouble.seen >= _FORGET:
                del self._troubles[kind]

    def _log(self, kind: str, trouble: _Trouble, now: float, text: str, args: tuple[object, ...]) -> None:
        suppressed, length = trouble.suppressed, now - trouble.logged
        if suppressed:
            text = _formatted(text, args) + " (%d more of the kind in the last %.0f s.)"
            args = (*args, suppressed, length)
        self._write(kind, trouble, now, text, args)

    def _log_end(self, kind: str, trouble: _Trouble, now: float, text: str, args: tuple[object, ...]) -> None:
        text = _formatted(text, args) + " It took %.0f s; %d more of the kind were not logged."
        trouble.told = False
        self._write(kind, trouble, now, text, (*args, now - trouble.since, trouble.suppressed))

    def _write(self, kind: str, trouble: _Trouble, now: float, text: str, args: tuple[object, ...]) -> None:
        suppressed, trouble.suppressed = trouble.suppressed, 0
        trouble.logged = now
        LOGGER.warning(text, *args, extra={"tokenmw.kind": kind, "tokenmw.suppressed": suppressed})


def _formatted(text: str, args: tuple[object, ...]) -> str:
    # `logging` leaves a text without arguments as it is; with the count it has some.
    return text if args else text.replace("%", "%%")
