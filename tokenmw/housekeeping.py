"""Background jobs, once a second, so that no request has to do them; and recovery after an outage.

Recovery: when Redis is available again, or has lost data, everything in use is uploaded again. The newer token wins,
and of session ids the one that Redis has. Instances notice a recovery some seconds apart, each with its next probe, and
the first one cannot see what others invalidated during the outage. They announce it when they upload it. Where not all
changes are announced, tokens are uploaded and compared a second time, when the last instance has uploaded its own.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Final

from tokenmw.observe.error_place import with_place
from tokenmw.redaction import Unpicklable
from tokenmw.redis.batch_pace import BatchPace
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenmw.clock import Clock
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.epoch import EpochMarkers
    from tokenmw.redis.hints import HintListener
    from tokenmw.sessions.sync import SessionSync
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.sync import TokenSync

__all__ = ["Housekeeping", "Recovery", "RedisJobs"]

_ROUND_SECONDS: Final = 1.0
_PURGE_EVERY: Final = 10  # rounds
_SMALLEST_BATCH: Final = 16  # entries whose versions are compared with Redis in one round trip
_LARGEST_BATCH: Final = 100
_COMPARE_AT_ONCE: Final = 16  # entries that have changed, compared with Redis at the same time
_CHECK_EPOCHS_EVERY: Final = 5.0  # seconds
_JITTER: Final = 2.0  # seconds over which instances spread, so that they do not upload at the same moment
_SECOND_UPLOAD_AFTER: Final = 6.5  # seconds: the longest backoff between probes, plus a round of housekeeping


class Housekeeping(Unpicklable):
    """Runs jobs once a second: those with Redis, the counts of suppressed log lines, and every tenth time the purge."""

    def __init__(
        self,
        jobs: Sequence[Callable[[], Awaitable[None]]],
        *,
        purge: Callable[[], None],
        clock: Clock,
        log: ThrottledLog,
    ) -> None:
        self._jobs = (*jobs, self._tidy)
        self._purge = purge
        self._clock = clock
        self._log = log
        self._rounds = 0

    async def run(self) -> None:
        """Run until cancelled. No exception of a job stops it."""
        task = asyncio.current_task()
        # A job can lose a cancellation: the program's Redis client may use asyncio.wait_for, which can swallow one on
        # Python 3.11. Closing the broker waits for this task.
        while task is None or not task.cancelling():
            # With jitter, so that instances that started together do not use Redis at the same time.
            await self._clock.sleep(_ROUND_SECONDS * random.uniform(0.8, 1.2))
            for job in self._jobs:
                try:
                    await job()
                except RedisUnavailable:
                    continue  # what is unshared stays so; the failure has been counted and logged
                except Exception as error:  # noqa: BLE001  nobody would notice that housekeeping has stopped
                    place, reason = with_place(error, called=job), type(error).__name__
                    self._log.problem("housekeeping", "Housekeeping: a job raised %s", place, reason=reason)

    async def _tidy(self) -> None:
        self._log.flush()
        self._rounds += 1
        if self._rounds % _PURGE_EVERY == 0:
            self._purge()


class Recovery(Unpicklable):
    """Schedules two uploads after each recovery, with jitter between instances; the second one is not always needed."""

    __slots__ = ("_clock", "_first_at", "_second_at")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_at = self._second_at = float("inf")

    def schedule(self) -> None:
        """Schedule both uploads. Called when a server is available again, or has lost data."""
        now = self._clock.monotonic()
        if self._first_at == float("inf"):  # else the earliest of several draws would win, on all instances alike
            self._first_at = now + random.uniform(0.0, _JITTER)
        self._second_at = now + _SECOND_UPLOAD_AFTER + random.uniform(0.0, _JITTER / 2)

    def first_due(self) -> bool:
        """Return whether the first upload is due, and if so, remove it from the schedule."""
        if self._clock.monotonic() < self._first_at:
            return False
        self._first_at = float("inf")
        return True

    def second_due(self) -> bool:
        """Return whether the second upload, of tokens only, is due, and if so, remove it from the schedule."""
        if self._clock.monotonic() < self._second_at:
            return False
        self._second_at = float("inf")
        return True


class RedisJobs(Unpicklable):
    """The jobs that need Redis: recovery, comparing tokens in use, and sending touches and sessions."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        epochs: EpochMarkers,
        recovery: Recovery,
        cache: TokenCache,
        tokens: TokenManager,
        token_sync: TokenSync,
        session_sync: SessionSync,
        clock: Clock,
        listener: HintListener | None = None,
    ) -> None:
        self._connection = connection
        self._epochs = epochs
        self._listener = listener
        self._recovery = recovery
        self._cache = cache
        self._tokens = tokens
        self._token_sync = token_sync
        self._session_sync = session_sync
        self._clock = clock
        self._check_epochs_at = 0.0
        self._pace = BatchPace(least=_SMALLEST_BATCH, most=_LARGEST_BATCH)

    @property
    def jobs(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """The jobs of one round, in order."""
        # A batch may take `background_seconds`, so none is sent while it is not known whether Redis is available.
        connection = self._connection
        return connection.check_servers, self.recover, self.compare_tokens, self.send_touches, self.reupload_sessions

    async def recover(self) -> None:
        """Check every 5 s whether Redis has lost data, and mark what has to be uploaded again."""
        now = self._clock.monotonic()
        if now >= self._check_epochs_at and self._connection.usable:
            self._check_epochs_at = now + _CHECK_EPOCHS_EVERY
            announces = self._listener is not None and not self._listener.refused
            if await self._epochs.changed(self._connection, announces=announces):
                self._recovery.schedule()
        if self._recovery.first_due():
            self._mark_tokens_unshared()
            self._session_sync.begin_reupload()
        if self._recovery.second_due() and not self._all_announced:
            self._mark_tokens_unshared()

    async def compare_tokens(self) -> None:
        """Compare the tokens in use with Redis, and upload what is unshared."""
        if not self._connection.settled:
            return
        now = self._clock.monotonic()
        announced = self._all_announced
        due = [entry for entry in self._cache if self._token_sync.is_due(entry, now, announced=announced)]
        random.shuffle(due)  # so that after a loss of data the instances of a fleet upload different ones
        while due:
            batch = due[: self._pace.size]
            del due[: len(batch)]
            try:
                changed = await self._pace.run(partial(self._token_sync.changed, batch), count=len(batch))
            except RedisUnavailable:
                if self._connection.one_slot or not self._connection.usable:
                    raise
                continue  # the entries of the other servers of a cluster are compared
            await self._compare(changed)

    async def _compare(self, entries: Sequence[TokenEntry]) -> None:
        for start in range(0, len(entries), _COMPARE_AT_ONCE):
            batch = entries[start : start + _COMPARE_AT_ONCE]
            # With return_exceptions, none is left running when one raises.
            results = await asyncio.gather(*map(self._token_sync.compare, batch), return_exceptions=True)
            for entry, result in zip(batch, results, strict=True):
                if result is True:
                    self._tokens.refresh_soon(entry)
            for result in results:
                # An unavailable server of a cluster does not prevent the entries of the others from being compared.
                if isinstance(result, BaseException) and not (
                    isinstance(result, RedisUnavailable) and self._connection.usable
                ):
                    raise result

    async def send_touches(self) -> None:
        """Send the touches that requests have queued."""
        if self._connection.settled:
            await self._session_sync.send_touches()

    async def reupload_sessions(self) -> None:
        """Upload the next part of the sessions that Redis may have lost."""
        if self._connection.settled:
            await self._session_sync.send_reupload()

    @property
    def _all_announced(self) -> bool:
        """Whether this process hears of each change that another one makes.

        What was announced before it listened is no exception: when it begins to, all tokens are compared.
        """
        return self._listener is not None and self._listener.listening and not self._epochs.silent

    def _mark_tokens_unshared(self) -> None:
        now = self._clock.monotonic()
        for entry in self._cache:
            entry.mark_unshared(now)
