"""Remembers what has happened in the last hour, for the status: events, token requests, and commands to Redis.

Unlike a program's observers it is always there: what it counts is rare, because a request whose token and session id
are cached causes no event. Everything is bounded. Nothing has a secret, an API key, a tenant, a user or a session id; a
credential that a callable has chosen has its opaque name.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tokenmw.observe import events as e
from tokenmw.observe.state_events import OperatorActed, RedisCommandFinished, RedisStateChanged
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock

__all__ = ["HOUR", "Happening", "Hour", "Recorder"]

HOUR: Final = 3600.0
"""Seconds that are remembered."""
_MINUTES: Final = 60
_MOST_EVENTS: Final = 50
_MOST_NAMES: Final = 1_000  # of providers
_MOST_NODES: Final = 64
_MOST_OUTAGES: Final = 60  # of one node
_MOST_REASONS: Final = 32
_DURATIONS: Final = 100  # of which percentiles are taken

Level = Literal["good", "warn", "bad", "info"]


class Happening(NamedTuple):
    """One line of the last events: when, what, about which provider or server, and how often in a row."""

    at: float
    level: Level
    text: str
    subject: str
    credential: str
    times: int


class Hour:
    """Counts by minutes, of which it keeps the last sixty; and the last durations."""

    __slots__ = ("_counts", "_durations", "_minute", "_times")

    def __init__(self) -> None:
        self._counts = [0] * _MINUTES
        self._minute = 0
        self._durations: deque[float] = deque(maxlen=_DURATIONS)
        self._times: deque[float] = deque(maxlen=_DURATIONS)

    def add(self, now: float, seconds: float | None = None) -> None:
        """Count one at a monotonic time, with its duration if there is one."""
        self._turn(now)
        self._counts[self._minute % _MINUTES] += 1
        if seconds is not None:
            self._durations.append(seconds)
            self._times.append(now)

    def total(self, now: float) -> int:
        """Return how many there were in the last hour."""
        self._turn(now)
        return sum(self._counts)

    def percentile(self, part: float, now: float) -> float | None:
        """Return the duration that this part of the last ones did not exceed; None without any in the last hour."""
        times = zip(self._times, self._durations, strict=True)
        durations = sorted(seconds for at, seconds in times if now - at <= HOUR)
        return durations[min(len(durations) - 1, int(part * len(durations)))] if durations else None

    def _turn(self, now: float) -> None:
        minute = int(now // 60)
        for passed in range(max(self._minute + 1, minute - _MINUTES + 1), minute + 1):
            self._counts[passed % _MINUTES] = 0
        self._minute = max(self._minute, minute)


class Recorder(Unpicklable):
    """Takes all events of a broker.

    Args:
        clock: Time.

    Attributes:
        commands: The commands to Redis.
        command_errors: Those that failed, by reason.
    """

    __slots__ = ("_clock", "_events", "_fetches", "_outages", "command_errors", "commands")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[Happening] = deque(maxlen=_MOST_EVENTS)
        self._fetches: dict[str, Hour] = {}
        self._outages: dict[str, deque[tuple[float, float | None]]] = {}
        self.commands = Hour()
        self.command_errors: dict[str, Hour] = {}

    def __call__(self, event: e.Event) -> None:
        """Take an event."""
        if isinstance(event, RedisCommandFinished):  # by far the most
            self._finished(event)
            return
        if isinstance(event, e.TokenFetched):
            hour = self._fetches.get(event.provider)
            if hour is None and len(self._fetches) < _MOST_NAMES:
                hour = self._fetches[event.provider] = Hour()
            if hour is not None:
                hour.add(self._clock.monotonic(), event.seconds)
        elif isinstance(event, RedisStateChanged):
            self._changed(event)
        if isinstance(event, e.LeaseChanged) and event.change != "taken_over":
            return  # each refresh has one
        describe = _TEXTS.get(type(event))
        if describe is not None:
            self._remember(*describe(event), credential=getattr(event, "credential", ""))

    @property
    def events(self) -> list[Happening]:
        """The last events, the newest first."""
        return list(reversed(self._events))

    def fetches(self, provider: str) -> tuple[int, float | None]:
        """Return how often a provider was asked in the last hour, and the 95th percentile of the seconds."""
        hour, now = self._fetches.get(provider), self._clock.monotonic()
        return (0, None) if hour is None else (hour.total(now), hour.percentile(0.95, now))

    def outages(self, node: str) -> list[tuple[float, float | None]]:
        """Return the beginnings and ends, in seconds since 1970, of a server's outages in the last hour."""
        since = self._clock.time() - HOUR
        return [(began, ended) for began, ended in self._outages.get(node, ()) if ended is None or ended > since]

    def _finished(self, event: RedisCommandFinished) -> None:
        now = self._clock.monotonic()
        self.commands.add(now, None if event.error else event.seconds)
        if event.error:
            hour = self.command_errors.get(event.error)
            if hour is None:
                if len(self.command_errors) >= _MOST_REASONS:
                    return
                hour = self.command_errors[event.error] = Hour()
            hour.add(now)

    def _changed(self, event: RedisStateChanged) -> None:
        outages, now = self._outages.get(event.node), self._clock.time()
        if outages is None:
            if len(self._outages) >= _MOST_NODES:
                return
            outages = self._outages[event.node] = deque(maxlen=_MOST_OUTAGES)
        if event.up and outages and outages[-1][1] is None:
            outages.append((outages.pop()[0], now))
        elif not event.up and not (outages and outages[-1][1] is None):
            outages.append((now, None))

    def _remember(self, level: Level, text: str, subject: str, *, credential: str) -> None:
        times = 1
        if self._events:
            last = self._events[-1]
            if (last.level, last.text, last.subject) == (level, text, subject):
                # Of many tenants' tokens that are fetched one after the other, one line is enough.
                self._events.pop()
                times = last.times + 1
                credential = credential if credential == last.credential else ""
        self._events.append(Happening(self._clock.time(), level, text, subject, credential, times))


_Description = tuple[Level, str, str]


def _fetched(event: e.TokenFetched) -> _Description:
    good = event.outcome in {"granted", "repeated"}
    text = {"granted": "token fetched", "repeated": "same token fetched again"}.get(event.outcome)
    return ("good" if good else "bad"), text or f"token request failed ({event.error})", event.provider


def _lease(event: e.LeaseChanged) -> _Description:
    return "warn", "lease taken over from a process that did not finish", event.provider


def _redis(event: RedisStateChanged) -> _Description:
    return ("good", "recovered", event.node) if event.up else ("bad", f"unavailable ({event.error})", event.node)


def _connection(event: e.ConnectionChanged) -> _Description:
    level: Level = "good" if event.state in {"ok", "disconnected"} else "warn"
    reason = f" ({event.reason})" if event.reason else ""
    return level, f"a user's connection is {event.state}{reason}", event.provider


_CAUSES: Final = {
    "api": "token invalidated: an API rejected it",
    "operator": "token invalidated by the program or an operator",
    "instance": "token dropped: another instance invalidated it",
}
_TEXTS: Final[dict[type[e.Event], Callable[[Any], _Description]]] = {
    e.TokenFetched: _fetched,
    e.TokenAdopted: lambda event: ("good", "token of another instance taken over", event.provider),
    e.FailureAdopted: lambda event: ("bad", f"failure of another instance taken over ({event.reason})", event.provider),
    e.TokenInvalidated: lambda event: ("warn", _CAUSES[event.cause], event.provider),
    e.LeaseChanged: _lease,
    e.CommitRefused: lambda event: ("warn", f"fetched token not stored ({event.reason})", event.provider),
    e.ConnectionChanged: _connection,
    e.SessionReset: lambda _event: ("info", "session of an API key reset", ""),
    e.ValueUnreadable: lambda event: ("bad", f"{event.kind} in Redis is unreadable ({event.why})", "Redis"),
    RedisStateChanged: _redis,
    OperatorActed: lambda event: ("info", f"an operator requested {event.action}", event.provider),
}
