"""What is done in the background, once a second, so that no request has to do it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from tokenmw.observe.error_place import with_place
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.sessions.sync import SessionTouches
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.sync import TokenSync
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.epoch import EpochMarkers
    from tokenmw.sessions.sync import SessionReupload
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.sync import TokenSync

__all__ = ["Healing", "Housekeeping"]

_ROUND: Final = 1.0  # seconds between two rounds
_AT_ONCE: Final = 16  # entries compared with Redis at the same time
_PURGE_EVERY: Final = 10  # rounds


class Housekeeping:
    """Once a second: tell Redis what it does not know, compare tokens in use, purge what has ended, log counts."""

    __slots__ = (
        "_clock",
        "_coherence",
        "_entries",
        "_healing",
        "_jobs",
        "_log",
        "_purge",
        "_rounds",
        "_shared",
        "_touches",
    )

    def __init__(
        self,
        *,
        shared: RedisConnection | None,
        touches: SessionTouches | None,
        healing: Healing | None,
        coherence: TokenSync,
        entries: TokenCache,
        purge: Callable[[], None],
        clock: Clock,
        log: ThrottledLog,
    ) -> None:
        self._shared = shared
        self._touches = touches
        self._healing = healing
        self._coherence = coherence
        self._entries = entries
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
                except RedisUnavailable:
                    continue  # what is unshared stays so; the guard has counted and logged it
                except Exception as error:  # noqa: BLE001  housekeeping that stops would be noticed by nobody
                    self._log.problem("housekeeping", "Housekeeping: a job raised %s", with_place(error, called=job))

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
        due = [entry for entry in self._entries if self._coherence.due(entry, now)]
        for start in range(0, len(due), _AT_ONCE):
            batch = (self._coherence.check(entry) for entry in due[start : start + _AT_ONCE])
            # All are waited for, so that none is left behind when housekeeping is ended.
            for result in await asyncio.gather(*batch, return_exceptions=True):
                # One server of a cluster that is out keeps nothing from the others.
                if isinstance(result, BaseException) and not (isinstance(result, RedisUnavailable) and self._up):
                    raise result

    async def _tidy(self) -> None:
        self._log.flush()
        self._rounds += 1
        if self._rounds % _PURGE_EVERY == 0:
            self._purge()

    @property
    def _up(self) -> bool:
        return self._shared is not None and self._shared.usable


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
        "_entries",
        "_look_at",
        "_markers",
        "offers",
    )

    def __init__(
        self,
        connection: RedisConnection,
        *,
        markers: EpochMarkers,
        coherence: TokenSync,
        entries: TokenCache,
        offers: SessionReupload,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._markers = markers
        self._coherence = coherence
        self._entries = entries
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
        for entry in self._entries:
            self._coherence.mark_unshared(entry)
