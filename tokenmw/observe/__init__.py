"""What the package tells about itself: events for observers, and its own log."""

from __future__ import annotations

from tokenmw.observe.events import (
    Event,
    Observer,
    SharedStateChanged,
    TokenAdopted,
    TokenFetched,
    TokenInvalidated,
    ValueUnreadable,
)

__all__ = [
    "Event",
    "Observer",
    "SharedStateChanged",
    "TokenAdopted",
    "TokenFetched",
    "TokenInvalidated",
    "ValueUnreadable",
]
