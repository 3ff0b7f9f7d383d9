"""Offering all sessions in use again, after Redis may have lost what it held: in batches, none of them by a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.sessions.touches import BATCH

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.sessions.local_session import LocalSession
    from tokenmw.sessions.manager import SessionManager
    from tokenmw.sessions.touches import Touches

__all__ = ["Offers"]

_AT_ONCE: Final = 3.0  # seconds; then the rest of housekeeping has its turn


class Offers:
    """Goes through the local copies once for each time that `begin` is called, however long Redis is away meanwhile."""

    __slots__ = ("_clock", "_left", "_manager", "_touches")

    def __init__(self, manager: SessionManager, touches: Touches, *, clock: Clock) -> None:
        self._manager = manager
        self._touches = touches
        self._clock = clock
        self._left: list[bytes] = []

    def __len__(self) -> int:
        return len(self._left)

    def begin(self) -> None:
        """Offer all that is held now. What is found or made later is written to Redis by itself."""
        self._left = self._manager.held()

    async def send(self) -> None:
        """Send what is left, for three seconds at most.

        Raises:
            SharedUnavailable: Redis is away; what was not sent is left.
        """
        until = self._clock.monotonic() + _AT_ONCE
        away: list[bytes] = []
        try:
            while self._left and self._clock.monotonic() < until:
                part = self._left[-BATCH:]
                found = ((api_key, self._manager.to_offer(api_key)) for api_key in part)
                batch: dict[bytes, LocalSession] = {key: session for key, session in found if session is not None}
                away += await self._touches.offer(batch)
                del self._left[-len(part) :]
        finally:
            self._left += away
