"""What the package reports about itself: events for observers, and its own log.

`events` has the public event classes, and `observers` publishes them. `recorder` remembers those of the last hour for
the status. `throttle` is the log that an outage cannot flood, and `error_place` finds the place of an error in a
program's own code. `prometheus`, `opentelemetry`, `logging` and `structlog` are an observer each; `metrics` and
`measuring` say what the first two count. Only the module of an observer may import its library; nothing in the package
imports these modules.
"""

from __future__ import annotations

from tokenmw.observe.events import (
    CallerRefused,
    CommitRefused,
    ConnectionChanged,
    Event,
    FailureAdopted,
    LeaseChanged,
    Observer,
    RefreshEnded,
    RefreshStarted,
    SessionReset,
    SessionResolved,
    SessionsMade,
    SessionsReplaced,
    SharedStateChanged,
    TokenAdopted,
    TokenFetched,
    TokenInvalidated,
    TokenServed,
    TokenWaiting,
    Uploaded,
    ValueUnreadable,
)
from tokenmw.observe.state_events import (
    BrokerClosed,
    BrokerOpened,
    OperatorActed,
    RedisCommandFinished,
    RedisStateChanged,
    StateSampled,
)

__all__ = [
    "BrokerClosed",
    "BrokerOpened",
    "CallerRefused",
    "CommitRefused",
    "ConnectionChanged",
    "Event",
    "FailureAdopted",
    "LeaseChanged",
    "Observer",
    "OperatorActed",
    "RedisCommandFinished",
    "RedisStateChanged",
    "RefreshEnded",
    "RefreshStarted",
    "SessionReset",
    "SessionResolved",
    "SessionsMade",
    "SessionsReplaced",
    "SharedStateChanged",
    "StateSampled",
    "TokenAdopted",
    "TokenFetched",
    "TokenInvalidated",
    "TokenServed",
    "TokenWaiting",
    "Uploaded",
    "ValueUnreadable",
]
