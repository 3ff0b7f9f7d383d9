"""Everything shared again by itself: when Redis is back, or was found without what it held, it is told all once more.

Of tokens the newer one stays, of session ids the one that Redis has.

Instances find Redis back some seconds apart, each with its next probe. Who was first has seen nothing of what others
declared invalid meanwhile, so tokens are compared a second time, when the last one has told.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.sessions.offers import Offers
    from tokenmw.shared.connection import SharedConnection
    from tokenmw.shared.markers import Markers
    from tokenmw.tokens.coherence import Coherence
    from tokenmw.tokens.slots import Slots

__all__ = ["Healing"]

_LOOK_EVERY: Final = 5.0  # seconds between two looks at the marks
_SPREAD: Final = 2.0  # seconds over which instances spread, so that they do not come all at once
_AGAIN: Final = 6.5  # seconds until the second look: the longest pause between probes, and a round of housekeeping


class Healing:
    """Looks at the marks every 5 s, and begins to offer; housekeeping does the sending."""

    __slots__ = (
        "_again_at",
        "_begin_at",
        "_clock",
        "_coherence",
        "_connection",
        "_look_at",
        "_markers",
        "_slots",
        "offers",
    )

    def __init__(
        self,
        connection: SharedConnection,
        *,
        markers: Markers,
        coherence: Coherence,
        slots: Slots,
        offers: Offers,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._markers = markers
        self._coherence = coherence
        self._slots = slots
        self._clock = clock
        self._look_at = 0.0
        self._begin_at: float | None = None
        self._again_at: float | None = None
        self.offers = offers

    def begin(self) -> None:
        """Offer all again, after a moment that differs between instances. Called when a server is back."""
        now = self._clock.monotonic()
        if self._begin_at is None:
            self._begin_at = now + random.uniform(0.0, _SPREAD)
        self._again_at = now + _AGAIN + random.uniform(0.0, _SPREAD / 2)

    async def look(self) -> None:
        """Look at the marks if it is time, and mark what is to be offered again."""
        now = self._clock.monotonic()
        if now >= self._look_at and self._connection.usable:
            self._look_at = now + _LOOK_EVERY
            if await self._markers.changed(self._connection):
                self.begin()
        if self._begin_at is not None and self._clock.monotonic() >= self._begin_at:
            self._begin_at = None
            self._doubt_tokens()
            self.offers.begin()
        if self._again_at is not None and self._clock.monotonic() >= self._again_at:
            self._again_at = None
            self._doubt_tokens()

    def _doubt_tokens(self) -> None:
        for slot in self._slots:
            self._coherence.doubt(slot)
