"""The event of a user's connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenmw.observe.events import Event

__all__ = ["ConnectionChanged"]


@dataclass(frozen=True, slots=True)
class ConnectionChanged(Event):
    """A user's connection changed its state. It does not say whose.

    Attributes:
        provider: The app's name in `Connections`.
        state: `ok` (connected, or refreshed after failures), `failing` (the last refresh failed, and it is tried
            again), `reconnect` (the user has to connect again) or `disconnected`.
        reason: Why, such as `unavailable` or `invalid_grant`; "" for `ok` and `disconnected`.
    """

    provider: str
    state: Literal["ok", "failing", "reconnect", "disconnected"]
    reason: str = ""
