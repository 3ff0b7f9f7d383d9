"""What the package reports about itself: events for observers, and its own log.

`events` has the public event classes, `throttle` the log that an outage cannot flood, `error_place` the place of an
error in a program's own code, `prometheus` and `opentelemetry` an observer each. Only those two may import a metrics
library; nothing in the package imports them.
"""

from __future__ import annotations

from tokenmw.observe.events import (
    ConnectionChanged,
    Event,
    Observer,
    SharedStateChanged,
    TokenAdopted,
    TokenFetched,
    TokenInvalidated,
    ValueUnreadable,
)

__all__ = [
    "ConnectionChanged",
    "Event",
    "Observer",
    "SharedStateChanged",
    "TokenAdopted",
    "TokenFetched",
    "TokenInvalidated",
    "ValueUnreadable",
]
