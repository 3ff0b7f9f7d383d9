"""A refresh over Redis: the holder of the lease asks the provider, the others wait for its token or its failure."""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.clock import Instant
from tokenmw.errors import TokenUnavailable
from tokenmw.observe.events import CommitRefused, LeaseChanged
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import UNKNOWN, RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import Busy, ClockMismatch, FailureNoted, Found, Leased, Stored, Tombstoned
from tokenmw.tokens.backoff import longest_probe_wait
from tokenmw.tokens.failures import OF_MACHINE, OF_PROVIDER, Failure
from tokenmw.tokens.fetch import record_of

if TYPE_CHECKING:
    from tokenmw.limits import Limits
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.redis.token_store import TokenKeys, TokenRecord
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.refresh import Refresher
    from tokenmw.tokens.store import TokenStore
    from tokenmw.values import Grant

__all__ = ["LeasedRefresh"]

# Seconds between two polls for another process's token: a tenth of the time waited, so that polling adds no more than
# that to what the provider takes, within these bounds.
_MIN_POLL: Final = 0.02
_MAX_POLL: Final = 0.08
_MIN_MARGIN: Final = 0.3  # seconds from the end of a request to the end of its lease, for the commit
_MARGIN_COMMANDS: Final = 2  # the same in Redis commands
# Commands that may time out before this process asks the provider alone. When a fleet starts at once, one that is late
# says little of Redis, and costs the provider a request. As many as open the circuit, so that an outage costs no more.
_TRIES: Final = 3
_REPEATED: Final = frozenset({"timeout", "busy"})
_REFUSALS: Final[dict[type, Literal["lease", "invalidated", "newer", "clock"]]] = {
    Busy: "lease",
    Tombstoned: "invalidated",
    Found: "newer",
    ClockMismatch: "clock",
}
_REPLY_LOST: Final = frozenset({"timeout", "reset", "connection", "error", UNKNOWN})  # it may have been executed


class LeasedRefresh(Unpicklable):
    """One refresh over Redis.

    Attributes:
        lease_may_remain: Whether Redis may hold a lease for this refresh that it does not know of, or could not end.
    """

    __slots__ = (
        "_clock",
        "_entry",
        "_held_until",
        "_http",
        "_keys",
        "_known",
        "_limits",
        "_noted",
        "_owner",
        "_refresher",
        "_skipped",
        "_skipped_now",
        "_store",
        "lease_may_remain",
    )

    def __init__(
        self,
        refresher: Refresher,
        store: TokenStore,
        entry: TokenEntry,
        keys: TokenKeys,
        http: TokenHTTP,
        *,
        limits: Limits,
    ) -> None:
        self._refresher = refresher
        self._store = store
        self._entry = entry
        self._keys = keys
        self._http = http
        self._clock = refresher.clock
        self._limits = limits
        self._owner = secrets.token_hex(8)
        self._known = entry.known_version
        self._skipped = self._skipped_now = False  # whether time was skipped in a fetch, and in the last one
        self._noted: Failure | None = None  # the failure of another instance whose note has been waited for
        self._held_until: float | None = None  # when the lease of another process expires
        self.lease_may_remain = False

    @property
    def _lease_seconds(self) -> float:
        """The duration of the lease, after which a holder that died is replaced.

        A request that outlasts its lease costs one more request: versions decide which token counts. With an exclusive
        provider it costs the token, so that the whole of `lease_seconds` is used.
        """
        limits = self._limits
        if self._entry.provider.exclusive:
            return limits.lease_seconds
        margin = max(_MIN_MARGIN, _MARGIN_COMMANDS * limits.command_seconds)
        return min(limits.lease_seconds, limits.fetch_seconds + margin)

    async def run(self) -> None:
        """Give the entry a token or a failure.

        Raises:
            RedisUnavailable: Nothing was decided.
            Unreadable: Other instances have stored a token that this one cannot read.
        """
        started = self._clock.monotonic()
        through_note = False
        while True:
            at = Instant(self._clock)
            # Versions invalidated since the start are excluded. A token adopted since is not: it ends this refresh.
            known = max(self._known, self._entry.invalid_version)
            reply = await self._acquire(known=known, through_note=through_note)
            through_note = False
            self._report_lease(reply, started=started)
            if isinstance(reply, Found):
                if self._refresher.adopt(self._entry, reply, at) or self._already_adopted(reply, at):
                    return
                self._known = max(self._known, reply.version)  # rejected or about to expire: one above it is needed
                continue
            if isinstance(reply, ClockMismatch):
                self._entry.redate(reply.server_time, at)
                self._known = self._entry.known_version
            if isinstance(reply, FailureNoted):
                failure = self._failure_of(reply)
                through_note = self._is_outdated(failure, reply.left)
                if through_note or await self._wait_for(failure, reply.left, started=started):
                    continue
                self._refresher.adopt_failure(self._entry, failure)
                return
            if isinstance(reply, Leased) and await self._fetch(reply.version):
                return
            waited = self._clock.monotonic() - started
            if waited >= self._limits.wait_seconds:
                self._give_up()
                return
            await self._clock.sleep(self._poll_seconds(reply, waited=waited))

    async def release_when_available(self) -> None:
        """Release a lease that may remain, as soon as Redis answers; until then the others wait for it to expire."""
        until = self._clock.monotonic() + self._lease_seconds
        while self.lease_may_remain and self._clock.monotonic() < until:
            try:
                # Its owner gets the lease again. One that Redis has given to nobody is taken and released.
                reply = await self._store.acquire(
                    self._keys, self._owner, known=self._entry.known_version, seconds=_MIN_MARGIN
                )
            except RedisUnavailable:
                await self._clock.sleep(_MAX_POLL * random.uniform(0.6, 1.0))
            except Unreadable:
                return
            else:
                self.lease_may_remain = False
                if isinstance(reply, Leased):
                    await self._release(reply.version)

    async def _acquire(self, *, known: int, through_note: bool) -> Found | Leased | Busy | FailureNoted | ClockMismatch:
        tries = 0
        while True:
            try:
                reply = await self._store.acquire(
                    self._keys, self._owner, known=known, seconds=self._lease_seconds, through_note=through_note
                )
            except RedisUnavailable as error:
                self.lease_may_remain |= error.reason in _REPLY_LOST
                tries += 1
                if tries == _TRIES or error.reason not in _REPEATED:
                    raise
                if error.reason == "busy":
                    await self._clock.sleep(_MIN_POLL)
            else:
                self.lease_may_remain = False
                return reply

    def _report_lease(self, reply: object, *, started: float) -> None:
        entry, refresher, now = self._entry, self._refresher, self._clock.monotonic()
        if isinstance(reply, Busy):
            if self._held_until is None:
                refresher.observe(LeaseChanged(entry.name, "busy", entry.credential))
            self._held_until = now + reply.left
            return
        if isinstance(reply, Leased):
            # A holder that ends properly releases its lease: only that of one that has died or hangs expires.
            if self._held_until is not None and now >= self._held_until - _MAX_POLL / 2:
                refresher.reports.taken_over(entry, waited=now - started)
            else:
                refresher.observe(LeaseChanged(entry.name, "won", entry.credential))
        self._held_until = None

    def _is_outdated(self, failure: Failure, left: float) -> bool:
        # Written while a token was served, which has been invalidated since: now requests are refused.
        served = self._entry.served_for(Instant(self._clock)) > 0
        return failure.kind == OF_PROVIDER and not served and left > longest_probe_wait(self._limits)

    def _failure_of(self, reply: FailureNoted) -> Failure:
        before, now = self._entry.failure, self._clock.monotonic()
        return Failure.from_note(reply.note, left=reply.left, before=before, now=now, limits=self._limits)

    async def _wait_for(self, failure: Failure, left: float, *, started: float) -> bool:
        """Wait until a note expires, to ask the provider within this refresh. Return False if it is to fail now.

        One machine's fault must not fail the requests of the others. The second fault in a row, of another machine, is
        taken for the provider's.
        """
        waited = self._clock.monotonic() - started
        first = failure.kind == OF_MACHINE and failure.count == 1 and self._entry.failure is None
        if not first or waited + left + self._limits.fetch_seconds > self._limits.wait_seconds:
            return False
        self._noted = failure
        await self._clock.sleep(max(0.001, left))
        return True

    def _poll_seconds(self, reply: Leased | Busy | ClockMismatch, *, waited: float) -> float:
        if self._skipped_now:
            self._skipped_now = False
            return 0.0
        poll = min(_MAX_POLL, max(_MIN_POLL, waited / 10))
        left = reply.left if isinstance(reply, Busy) else poll
        return max(0.001, min(left, poll * random.uniform(0.6, 1.0)))

    def _give_up(self) -> None:
        if self._noted is not None:
            self._refresher.adopt_failure(self._entry, self._noted)
            return
        text = f"another process did not store a token within {self._limits.wait_seconds:g} s"
        self._refresher.fail(self._entry, TokenUnavailable(text))

    def _already_adopted(self, found: Found, at: Instant) -> bool:
        # Housekeeping compares tokens in use with Redis, and may have found it first.
        current = self._entry.current
        return current is not None and current.version >= found.version and current.usable(at)

    async def _fetch(self, version: int) -> bool:
        """Ask the provider under the lease, and commit. Return whether the refresh is over."""
        try:
            return await self._ask_and_commit(version)
        except BaseException:
            await self._release(version)  # closing, or an error: the others need not wait until the lease expires
            raise

    async def _ask_and_commit(self, version: int) -> bool:
        entry, refresher, asked = self._entry, self._refresher, Instant(self._clock)
        if self._noted is not None and entry.failure is None:
            entry.failure = self._noted  # counted, so that a second fault in a row is known to be one
        grant = await refresher.ask(entry, self._http, version=version)
        if grant is None:
            await self._release(version, failure=entry.failure)
            # If this process was paused past its lease, another one may have fetched a token meanwhile.
            await refresher.adopt_stored(entry)
            return True
        record = record_of(grant)
        if entry.current is not None:
            record = entry.current.merged(record, grant.expires_in, asked)
        left = grant.expires_in - Instant(self._clock).since(asked)
        if left <= 0:
            return await self._expired_on_arrival(grant, record, version, asked)
        try:
            reply = await self._store.commit(self._keys, self._owner, record, version=version, left=left)
        except (RedisUnavailable, Unreadable) as error:
            self.lease_may_remain = isinstance(error, RedisUnavailable)
            return self._install(record, version, grant.expires_in, asked, shared=False)
        if not isinstance(reply, Stored):
            refused = CommitRefused(entry.name, _REFUSALS[type(reply)], entry.credential)
            refresher.observe(refused)
        if isinstance(reply, Found) and refresher.adopt(entry, reply, Instant(self._clock)):
            return True
        if isinstance(reply, (Busy, Tombstoned)):
            # The lease expired during a pause and another process asks now, or the token was invalidated meanwhile.
            # In both cases the next token counts.
            return False
        # After a `ClockMismatch` it is unshared, and the upload gives it another version.
        return self._install(record, version, grant.expires_in, asked, shared=isinstance(reply, Stored))

    async def _expired_on_arrival(self, grant: Grant, record: TokenRecord, version: int, asked: Instant) -> bool:
        await self._release(version)
        if not self._skipped and self._refresher.has_skipped(grant, asked):
            self._skipped = self._skipped_now = True
            await self._refresher.adopt_stored(self._entry)
            return self._entry.served_for(Instant(self._clock)) > 0
        done = self._install(record, version, grant.expires_in, asked, shared=False)
        await self._refresher.adopt_stored(self._entry)
        return done

    def _install(self, record: TokenRecord, version: int, left: float, at: Instant, *, shared: bool) -> bool:
        return self._refresher.install(self._entry, record, version=version, left=left, at=at, shared=shared)

    async def _release(self, version: int, *, failure: Failure | None = None) -> None:
        note, seconds, now = b"", 1.0, self._clock.monotonic()
        if failure is not None and failure.note_until > now:
            note, seconds = failure.failure_note(self._refresher.writer), failure.note_until - now
        try:
            await self._store.release(self._keys, self._owner, version=version, note=note, seconds=seconds)
        except (RedisUnavailable, Unreadable) as error:
            self.lease_may_remain = isinstance(error, RedisUnavailable)
            return
        self.lease_may_remain = False
        if note and failure is not None:
            failure.stand_back(now)
