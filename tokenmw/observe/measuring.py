"""What events add to metrics, and what samples set.

Each series that can be known beforehand begins at 0, because `increase()` does not see the first value of a series.
"""

from __future__ import annotations

import operator
from itertools import product
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import tokenmw.observe as e
from tokenmw.observe import metrics as m
from tokenmw.observe.metrics import Labels, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Gauges", "Reading", "initial", "readings"]

Reading: TypeAlias = tuple[Metric, float, Labels]

# The words of labels, where they can be known beforehand. Those of the second part need a Redis.
_WORDS: Final[dict[Metric, tuple[Labels, ...]]] = {
    m.REQUESTS: (m.RESULTS,),
    m.WAIT: (),
    m.FETCHES: (m.OUTCOMES,),
    m.FETCH: (m.OUTCOMES,),
    m.INVALIDATED: (m.CAUSES,),
    m.FAILING: (m.REASONS,),
    m.EXPIRY: (),
    m.NEXT: (),
    m.SESSIONS: (m.SOURCES,),
    m.RESETS: (),
    m.CALLERS: (m.REFUSALS,),
}
_WORDS_WITH_REDIS: Final[dict[Metric, tuple[Labels, ...]]] = {
    m.ADOPTED: (),
    m.FAILURES: (m.REASONS,),
    m.TAKEOVERS: (),
    m.REFUSED_COMMITS: (("lease", "invalidated", "newer", "clock"),),
    m.UPLOADS: (("token", "tombstone", "session"),),
    m.MADE: (),
    m.REPLACED: (),
    m.CHANGES: (),
    m.COMMANDS: (m.OPERATIONS,),
    m.ERRORS: (m.OPERATIONS, m.ERROR_WORDS),
    m.BREAKER: (("open", "closed"),),
    m.UNREADABLE: (("token", "session"), ("unknown-key", "expired", "damaged")),
}


def initial(opened: e.BrokerOpened) -> Iterator[tuple[Metric, Labels]]:
    """Return the series of a broker that begin at 0."""
    words = {**_WORDS, **(_WORDS_WITH_REDIS if opened.shared else {})}
    for metric, parts in words.items():
        providers = (opened.providers,) if "provider" in metric.labels else ()
        for labels in product(*providers, *parts):
            yield metric, labels


def readings(event: e.Event) -> tuple[Reading, ...]:
    """Return what an event adds to counters and histograms; nothing for an event that a later version added."""
    read = _READINGS.get(type(event))
    return () if read is None else read(event)


def _served(event: e.TokenServed) -> tuple[Reading, ...]:
    served: Reading = (m.REQUESTS, event.count, (event.provider, event.result))
    return (served,) if event.seconds is None else (served, (m.WAIT, event.seconds, (event.provider,)))


def _fetched(event: e.TokenFetched) -> tuple[Reading, ...]:
    labels = event.provider, event.outcome
    return (m.FETCHES, 1, labels), (m.FETCH, event.seconds, labels)


def _command(event: e.RedisCommandFinished) -> tuple[Reading, ...]:
    took: Reading = (m.COMMANDS, event.seconds, (event.operation,))
    return (took, (m.ERRORS, 1, (event.operation, event.error))) if event.error else (took,)


def _lease(event: e.LeaseChanged) -> tuple[Reading, ...]:
    return ((m.TAKEOVERS, 1, (event.provider,)),) if event.change == "taken_over" else ()


_READINGS: Final[dict[type[e.Event], Callable[[Any], tuple[Reading, ...]]]] = {
    e.TokenServed: _served,
    e.TokenFetched: _fetched,
    e.TokenAdopted: lambda event: ((m.ADOPTED, 1, (event.provider,)),),
    e.FailureAdopted: lambda event: ((m.FAILURES, 1, (event.provider, event.reason)),),
    e.TokenInvalidated: lambda event: ((m.INVALIDATED, 1, (event.provider, event.cause)),),
    e.LeaseChanged: _lease,
    e.CommitRefused: lambda event: ((m.REFUSED_COMMITS, 1, (event.provider, event.reason)),),
    e.Uploaded: lambda event: ((m.UPLOADS, event.count, (event.kind,)),),
    e.ConnectionChanged: lambda event: ((m.CONNECTION_CHANGES, 1, (event.provider, event.state)),),
    e.SessionResolved: lambda event: ((m.SESSIONS, event.count, (event.source,)),),
    e.SessionsMade: lambda event: ((m.MADE, event.count, ()),),
    e.SessionsReplaced: lambda event: ((m.REPLACED, event.count, ()),),
    e.SessionReset: lambda _event: ((m.RESETS, 1, ()),),
    e.CallerRefused: lambda event: ((m.CALLERS, event.count, (event.reason,)),),
    e.SharedStateChanged: lambda _event: ((m.CHANGES, 1, ()),),
    e.RedisStateChanged: lambda event: ((m.BREAKER, 1, ("closed" if event.up else "open",)),),
    e.RedisCommandFinished: _command,
    e.ValueUnreadable: lambda event: ((m.UNREADABLE, 1, (event.kind, event.why)),),
}


class Gauges:
    """The gauges of all brokers of a process, from their last samples."""

    def __init__(self) -> None:
        self._versions: dict[int, str] = {}
        self._samples: dict[int, e.StateSampled] = {}
        self._up: bool | None = None  # None: no broker with Redis was opened

    def update(self, event: e.Event) -> bool:
        """Take an event. Return whether it has changed a gauge."""
        match event:
            case e.BrokerOpened():
                self._versions[event.broker] = event.version
                if event.shared and self._up is None:
                    self._up = True
            case e.BrokerClosed():
                self._samples.pop(event.broker, None)
                self._versions.pop(event.broker, None)
            case e.StateSampled():
                self._samples[event.broker] = event
            case e.SharedStateChanged():
                self._up = event.up
            case _:
                return False
        return True

    def values(self) -> dict[tuple[Metric, Labels], float]:
        """Return the value of each series."""
        found: dict[tuple[Metric, Labels], float] = {}
        for version in self._versions.values():
            found[m.BUILD, (version,)] = 1
        if self._up is not None:
            found[m.SHARED, ()] = self._up
        for sample in self._samples.values():
            for metric, value, labels in _of_sample(sample):
                key = metric, labels
                found[key] = value if key not in found else _MERGE[metric.merge](found[key], value)
        return found


_MERGE: Final[dict[str, Callable[[float, float], float]]] = {"min": min, "max": max, "sum": operator.add}


def _of_sample(sample: e.StateSampled) -> Iterator[Reading]:
    for name, value in sample.expiries.items():
        yield m.EXPIRY, value, (name,)
    for name, value in sample.attempts.items():
        yield m.NEXT, value, (name,)
    for name in {*sample.expiries, *sample.failing}:
        for reason in m.REASONS:
            yield m.FAILING, sample.failing.get(name, {}).get(reason, 0), (name, reason)
    for node, up in sample.nodes.items():
        yield m.NODE, up, (node,)
    for state, count in sample.connections.items():
        yield m.CONNECTIONS, count, (state,)
    for kind, count in sample.unshared.items():
        yield m.UNSHARED, count, (kind,)
    yield m.LAG, sample.lag, ()
