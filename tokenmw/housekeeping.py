"""What is done in the background, once a second, so that no request has to do it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from tokenmw.raised import with_place
from tokenmw.shared.guard import SharedUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.healing import Healing
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.sessions.touches import Touches
    from tokenmw.shared.connection import SharedConnection
    from tokenmw.tokens.coherence import Coherence
    from tokenmw.tokens.slots import Slots

__all__ = ["Housekeeping"]

_ROUND: Final = 1.0  # seconds between two rounds
_AT_ONCE: Final = 16  # slots compared with Redis at the same time
_PURGE_EVERY: Final = 10  # rounds


class Housekeeping:
    """Once a second: tell Redis what it does not know, compare tokens in use, purge what has ended, log counts."""

    __slots__ = (
        "_clock",
        "_coherence",
        "_healing",
        "_jobs",
        "_log",
        "_purge",
        "_rounds",
        "_shared",
        "_slots",
        "_touches",
    )

    def __init__(
        self,
        *,
        shared: SharedConnection | None,
        touches: Touches | None,
        healing: Healing | None,
        coherence: Coherence,
        slots: Slots,
        purge: Callable[[], None],
        clock: Clock,
        log: ThrottledLog,
    ) -> None:
        self._shared = shared
        self._touches = touches
        self._healing = healing
        self._coherence = coherence
        self._slots = slots
        self._purge = purge
        self._clock = clock
        self._log = log
        self._rounds = 0
        self._jobs: tuple[Callable[[], Awaitable[None]], ...] = (
            self._look,
            self._compare,
            self._send_touches,
            self._offer_sessions,
            self._tidy,
        )

    async def run(self) -> None:
        """Go on until cancelled. No fault in a round ends it."""
        task = asyncio.current_task()
        # A cancellation can be lost in a job: a user's client may wait with asyncio.wait_for, which on Python 3.11
        # keeps one to itself. Whoever closes the broker waits for this task.
        while task is None or not task.cancelling():
            # Spread, so that many instances started together do not come to Redis together.
            await self._clock.sleep(_ROUND * random.uniform(0.8, 1.2))
            for job in self._jobs:
                try:
                    await job()
                except SharedUnavailable:
                    continue  # what is unshared stays so; the guard has counted and logged it
                except Exception as error:  # noqa: BLE001  housekeeping that stops would be noticed by nobody
                    self._log.problem("housekeeping", "Housekeeping: a job raised %s.", with_place(error, called=job))

    async def _look(self) -> None:
        if self._healing is not None:
            await self._healing.look()

    async def _offer_sessions(self) -> None:
        if self._healing is not None and self._up:
            await self._healing.offers.send()

    async def _send_touches(self) -> None:
        if self._touches is not None and self._up:
            await self._touches.send()

    async def _compare(self) -> None:
        if not self._up:
            return
        now = self._clock.monotonic()
        due = [slot for slot in self._slots if self._coherence.due(slot, now)]
        for start in range(0, len(due), _AT_ONCE):
            batch = (self._coherence.check(slot) for slot in due[start : start + _AT_ONCE])
            # All are waited for, so that none is left behind when housekeeping is ended.
            for result in await asyncio.gather(*batch, return_exceptions=True):
                # One server of a cluster that is out keeps nothing from the others.
                if isinstance(result, BaseException) and not (isinstance(result, SharedUnavailable) and self._up):
                    raise result

    async def _tidy(self) -> None:
        self._log.flush()
        self._rounds += 1
        if self._rounds % _PURGE_EVERY == 0:
            self._purge()

    @property
    def _up(self) -> bool:
        return self._shared is not None and self._shared.usable
