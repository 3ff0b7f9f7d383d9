"""Checks the entries that another process has announced as changed, so that they need not wait for housekeeping.

A hint only makes this process read Redis, which then decides. Anyone with access to the channel can send hints, so
their cost is bounded: a hint for a token that this process does not have costs one lookup in a dict, a second hint for
an entry that already waits changes nothing, and after a burst each entry is checked twice in `check_seconds` on
average, in batches without values. Keys wait, and not entries, so that an entry that is evicted meanwhile is not kept.

What was missed while nothing was heard is compared for all entries, and the instances of a fleet lose their connections
at the same moment. So each starts at a random time, compares in random order, those first that requests use, and pauses
after each batch for a multiple of the time that it took: the more instances compare, the longer it takes, and the
commands of requests wait for a few batches only. A hint interrupts the pause.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tokenmw.observe.error_place import with_place
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.sync import TokenSync

__all__ = ["TokenHints"]

_BATCH: Final = 100  # entries in one round trip
_LEAST_BURST: Final = 100.0  # checks at once, however few entries there are
_BURST_PER_ENTRY: Final = 4.0  # checks at once: all tokens are fetched in a start, and may be invalidated soon after it
_LEAST_RATE: Final = 10.0  # checks a second, likewise
_CHECKS_PER_ENTRY: Final = 2.0  # in `check_seconds`: after an invalidation, and after the fetch that follows it
_MOST_HINTS: Final = 10_000  # keys that wait; housekeeping finds what any further one announced
_RETRY_SECONDS: Final = 0.1  # while no check is allowed, or Redis is unavailable
# Seconds over which instances spread the comparison of what they have missed: those with 200 tokens begin within 0.3 s,
# those with 2 000 or more within 2 s.
_LEAST_SPREAD: Final = 0.1
_SPREAD_PER_ENTRY: Final = 0.001
_MOST_SPREAD: Final = 2.0
_PAUSE: Final = 4.0  # times what a batch took
_LONGEST_PAUSE: Final = 1.0  # seconds


class TokenHints(Unpicklable):
    """The entries that wait for a check, in the event loop in which it was made.

    Args:
        cache: The entries of this process.
        manager: Refreshes entries that lost a token in use.
        sync: Compares entries with Redis.
        usable: Returns whether Redis can be asked now.
        on_invalidated: Is called when another process has invalidated the token of a named provider.
        limits: `check_seconds` is the time in which housekeeping checks each entry once.
        log: Gets what a check raises.
    """

    __slots__ = (
        "_cache",
        "_check_seconds",
        "_checks",
        "_checks_at",
        "_hinted",
        "_log",
        "_loop",
        "_manager",
        "_missed",
        "_missed_at",
        "_on_invalidated",
        "_sync",
        "_usable",
        "_wake",
    )

    def __init__(
        self,
        *,
        cache: TokenCache,
        manager: TokenManager,
        sync: TokenSync,
        usable: Callable[[], bool],
        on_invalidated: Callable[[], None],
        limits: Limits,
        log: ThrottledLog,
    ) -> None:
        self._cache = cache
        self._manager = manager
        self._sync = sync
        self._usable = usable
        self._on_invalidated = on_invalidated
        self._check_seconds = limits.check_seconds
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._hinted: OrderedDict[bytes, None] = OrderedDict()
        self._missed: OrderedDict[bytes, None] = OrderedDict()
        self._missed_at = 0.0
        self._checks = 0.0
        self._checks_at = self._loop.time()
        self._wake = asyncio.Event()

    def add(self, key: bytes) -> None:
        """Check the entry whose token has this key in Redis, if this process has one that a change concerns."""
        if self._concerned(key) is not None and len(self._hinted) < _MOST_HINTS:
            self._hinted[key] = None
            self._wake.set()

    def add_all(self) -> None:
        """Check all entries, those first that requests use: hints may have been missed."""
        entries = [entry for entry in self._cache if entry.keys is not None]
        random.shuffle(entries)
        entries.sort(key=lambda entry: not entry.used)
        if not self._missed:  # else a connection that is lost again and again would put it off
            spread = min(_MOST_SPREAD, _LEAST_SPREAD + _SPREAD_PER_ENTRY * len(entries))
            self._missed_at = self._loop.time() + random.uniform(0.0, spread)
        # In place of those before: an entry that is no longer in the cache needs no check.
        self._missed = OrderedDict((entry.keys.token, None) for entry in entries if entry.keys is not None)
        self._wake.set()

    async def run(self) -> None:
        """Check what waits, until cancelled. No exception of a check stops it."""
        task = asyncio.current_task()
        while task is None or not task.cancelling():  # a client of the program's can lose a cancellation
            hinted: list[TokenEntry] = []
            missed: list[TokenEntry] = []
            if self._usable():
                hinted, missed = self._take(), self._take_missed()
            try:
                if hinted:
                    await self._check(hinted)
                if missed:
                    await self._check_missed(missed)
                if not hinted and not missed:
                    await self._pause()
            except RedisUnavailable:
                self._missed.update((entry.keys.token, None) for entry in hinted + missed if entry.keys is not None)
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001  nobody would notice that hints have no effect any more
                place, reason = with_place(error, called=None), type(error).__name__
                self._log.problem("housekeeping", "Housekeeping: a job raised %s", place, reason=reason)

    async def _pause(self) -> None:
        """Wait until something may be checked, or for a moment."""
        self._wake.clear()
        if not self._hinted and not self._missed:
            await self._wake.wait()
        elif self._hinted or not self._usable():
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._missed_at - self._loop.time())):
                    await self._wake.wait()

    def _take(self) -> list[TokenEntry]:
        """Return the next batch of hinted entries: as many as may be checked now."""
        entries, now = len(self._cache), self._loop.time()
        rate = _LEAST_RATE + _CHECKS_PER_ENTRY * entries / self._check_seconds
        self._checks = max(0.0, self._checks - (now - self._checks_at) * rate)
        self._checks_at = now
        allowed = int(max(_LEAST_BURST, _BURST_PER_ENTRY * entries) - self._checks)
        hinted = self._take_from(self._hinted, min(_BATCH, allowed))
        self._checks += len(hinted)
        return hinted

    def _take_missed(self) -> list[TokenEntry]:
        """Return the next batch of those whose hints may have been missed; none before its time."""
        return self._take_from(self._missed, _BATCH) if self._loop.time() >= self._missed_at else []

    def _take_from(self, keys: OrderedDict[bytes, None], most: int) -> list[TokenEntry]:
        batch: list[TokenEntry] = []
        while keys and len(batch) < most:
            key, _ = keys.popitem(last=False)  # of a plain dict, taking the first one takes longer each time
            self._missed.pop(key, None)
            entry = self._concerned(key)
            if entry is not None:
                batch.append(entry)
        return batch

    def _concerned(self, key: bytes) -> TokenEntry | None:
        """Return the entry of a key, if this process has one that a change in Redis concerns.

        A refresh in progress may be about to install a token that was invalidated after Redis had sent it.
        """
        entry = self._cache.of_key(key)
        if entry is None or not (entry.current or entry.failure or self._manager.refreshing(entry)):
            return None
        return entry

    async def _check(self, batch: list[TokenEntry]) -> None:
        """Check a batch; once more those whose server, one of a cluster, did not answer.

        If it fails again, recovery or the periodic check compares them.
        """
        unanswered = await self._check_once(batch)
        if unanswered:
            await asyncio.sleep(_RETRY_SECONDS)
            await self._check_once(unanswered)

    async def _check_missed(self, batch: list[TokenEntry]) -> None:
        """Check a batch: after one command for each entry, those that Redis no longer has as they are here."""
        began = self._loop.time()
        changed = await self._sync.changed(batch, keep_used=True)
        took = self._loop.time() - began
        self._missed_at = began + took + min(_LONGEST_PAUSE, _PAUSE * took) * random.uniform(0.5, 1.5)
        if changed:
            await self._check(changed)
        for entry in batch:
            self._manager.read_soon(entry)

    async def _check_once(self, batch: list[TokenEntry]) -> list[TokenEntry]:
        """Check a batch. Return the entries whose server, one of a cluster, did not answer."""
        before = [(entry, entry.invalid_version) for entry in batch if entry.named]
        lost, newer, unanswered = await self._sync.check_hinted(batch)
        if any(entry.invalid_version > version for entry, version in before):
            self._on_invalidated()
        results = await asyncio.gather(*map(self._sync.compare, newer), return_exceptions=True)
        lost += [entry for entry, result in zip(newer, results, strict=True) if result is True]
        for entry in lost:
            self._manager.refresh_soon(entry)
        for entry in batch:
            self._manager.read_soon(entry)
        for entry, result in zip(newer, results, strict=True):
            if isinstance(result, RedisUnavailable):
                unanswered.append(entry)
            elif isinstance(result, BaseException):
                raise result
        return unanswered
