"""One refresh: one process asks the provider, the others adopt its token.

    1. `acquire`, one script: a newer token that is already stored ends the refresh; else take the lease, if it is free.
    2. Another process holds the lease: poll. The token is polled, and the lease only where there is no token, so that
       no process queues for a lock that is useless once the token is stored.
    3. With the lease: ask the provider (5 s) before the lease expires, then `commit`. A commit is refused if the lease
       has expired and another process holds it: a process that was paused cannot overwrite what came later.
    4. The provider failed: `release` the lease with a failure note, which gives the others the cause.
    5. Redis unavailable, at any step: ask alone and mark the token unshared; housekeeping uploads it later.

The lease carries a fencing version, above every version that Redis or this process has seen. Nothing here runs in a
request's task, so a cancelled request leaves no lease behind; closing the broker releases it.
"""

from __future__ import annotations

import os
import socket
from copy import copy
from typing import TYPE_CHECKING, Final

from tokenmw.clock import Instant
from tokenmw.errors import RequestError, TokenUnavailable
from tokenmw.observe.error_place import place_of
from tokenmw.observe.events import TokenAdopted, TokenFetched
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.tokens.entry import CachedToken
from tokenmw.tokens.failures import Failure, backoff
from tokenmw.tokens.fetch import fetch_within, new_version, record_of
from tokenmw.tokens.leased_refresh import LeasedRefresh
from tokenmw.tokens.reporting import FailureReports, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.redis.token_store import Found, TokenRecord
    from tokenmw.tokens.cache import RejectedTokens
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.store import TokenStore
    from tokenmw.values import Grant

__all__ = ["Refresher", "new_version", "record_of"]

_MAX_WRITER: Final = 100  # characters
_ACTION: Final = "An operator at %s requested %s of %s"
_LEASE_ONLY: Final = (
    "each new token of this provider invalidates the one before, so only the holder of a lease in Redis may fetch one, "
    "and Redis is unavailable"
)


class Refresher(Unpicklable):
    """Gives entries new tokens or failures: from the provider, or from what another process has stored.

    Attributes:
        store: The tokens in Redis; None without Redis.
        clock: Time.
        log: Gets problems and recoveries.
        observe: Gets the events.
        reports: The log lines and events of failures.
        writer: This host and process, by which its failure notes are signed.
    """

    __slots__ = ("_limits", "_rejected", "_single_process", "clock", "log", "observe", "reports", "store", "writer")

    def __init__(
        self,
        *,
        store: TokenStore | None,
        rejected: RejectedTokens,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        observe: Callable[[Event], None],
        single_process: bool,
    ) -> None:
        self._rejected = rejected
        self._limits = limits
        self.observe = observe
        self.reports = FailureReports(log, observe=observe)
        self.log = log
        self._single_process = single_process
        self.store = store
        self.clock = clock
        self.writer = f"{socket.gethostname()[:_MAX_WRITER]}:{os.getpid()}"

    async def refresh(self, entry: TokenEntry, http: TokenHTTP) -> LeasedRefresh | None:
        """Give an entry a new token or a failure.

        Return the refresh over Redis whose lease Redis may still hold, because a reply was lost; else None.
        """
        started = self.clock.monotonic()
        leased: LeasedRefresh | None = None
        try:
            if self.store is None or entry.keys is None:
                await self._refresh_alone(entry, http, started=started)
            else:
                leased = LeasedRefresh(self, self.store, entry, entry.keys, http, limits=self._limits)
                await leased.run()
        except RedisUnavailable:
            await self._refresh_alone(entry, http, started=started)
        except Unreadable:
            # Other instances have stored a token sealed by a secret that this one lacks: ours is not uploaded.
            await self._refresh_alone(entry, http, started=started, upload=False)
        except Exception as error:  # noqa: BLE001  an error in a provider's class must not look like an expired token
            self.fail(entry, error)
        return leased if leased is not None and leased.lease_may_remain else None

    async def _refresh_alone(self, entry: TokenEntry, http: TokenHTTP, *, started: float, upload: bool = True) -> None:
        has_leases = self.store is not None and entry.keys is not None
        if entry.provider.exclusive and (has_leases or not self._single_process):
            self.fail(entry, TokenUnavailable(_LEASE_ONLY))
            return
        asked_again = False
        while True:
            asked = Instant(self.clock)
            # Chosen before the request: an invalidation that comes while it runs must be above this version.
            version = new_version(asked, entry.known_version)
            grant = await self.ask(entry, http, version=version)
            if grant is not None and not asked_again and self.has_skipped(grant, asked):
                asked_again = True
                continue
            if grant is None or self.install(
                entry, record_of(grant), version=version, left=grant.expires_in, at=asked, shared=not upload
            ):
                return
            if entry.current is not None:
                return  # a newer one was adopted meanwhile
            if self.clock.monotonic() - started >= self._limits.wait_seconds:
                self.fail(entry, TokenUnavailable("each token was invalidated while it was fetched"))
                return

    async def ask(self, entry: TokenEntry, http: TokenHTTP, *, version: int) -> Grant | None:
        """Ask the provider once, within `fetch_seconds`. Return None if it failed: the entry has the failure."""
        client, started = entry.client, self.clock.monotonic()
        if client is not None and not client.admits(started, seconds=self._limits.fetch_seconds):
            if client.failure is not None:
                entry.failure = Failure.shared(client, client.failure, before=entry.failure)
            return None
        entry.requested_version = version
        seen = None if client is None else client.failure

        def fail(error: BaseException) -> None:
            self.fail(entry, error, started=started, seen=seen)

        grant = await fetch_within(self._limits.fetch_seconds, entry, http, clock=self.clock, on_error=fail)
        if grant is None:
            return None
        if client is not None:
            client.succeed(seen)
        repeated = entry.current is not None and entry.current.token.value == grant.value
        took = self.clock.monotonic() - started
        outcome: Literal["repeated", "granted"] = "repeated" if repeated else "granted"
        self.observe(TokenFetched(entry.name, outcome, took, credential=entry.credential))
        if self._rejected.discard(grant.value):
            # The provider has granted again a token that an API rejected: another request would not change that.
            entry.ignore_reports_until = self.clock.monotonic() + backoff(entry.rejections + 1)
        return grant

    def has_skipped(self, grant: Grant, asked: Instant) -> bool:
        """Return whether a token has expired on arrival because its fetch took longer than any can.

        A clock was set forward, or the machine was suspended. That is no failure of the provider, which is asked again.
        """
        took = Instant(self.clock).since(asked)
        return took >= grant.expires_in and took > self._limits.fetch_seconds

    def fail(
        self,
        entry: TokenEntry,
        error: BaseException,
        *,
        started: float | None = None,
        seen: Failure | None = None,
    ) -> None:
        """Set the entry's failure, and log it.

        Args:
            entry: The entry.
            error: What was raised.
            started: When the provider was asked, by the monotonic clock; None if it was not.
            seen: The failure that all callers of the entry's client shared at that time.
        """
        now, before, client, raised = Instant(self.clock), entry.failure, entry.client, error
        if client is not None and started is not None:
            error = client.judge(before, error, started=started, now=now.mono)
        place = error.place if isinstance(error, RequestError) else place_of(error, called=entry.provider)
        entry.failure = failure = Failure.from_error(
            error, before=before, now=now.mono, served_for=entry.served_for(now), limits=self._limits
        )
        failure.place = place
        new = True
        if client is not None and started is not None:
            known = client.failure
            shared = client.fail(before, raised, seen=seen, now=now.mono, limits=self._limits)
            if shared is not None:
                shared.place = shared.place or place
                entry.failure = failure = Failure.shared(client, shared, before=before)
                new = shared is not known
        if new:
            self.reports.failed(entry, failure)
        if started is not None:
            seconds = now.mono - started
            outcome: Literal["rejected", "unavailable"] = "rejected" if failure.permanent else "unavailable"
            self.observe(TokenFetched(entry.name, outcome, seconds, reason_of(failure), entry.credential))

    def adopt_failure(self, entry: TokenEntry, failure: Failure) -> None:
        """Give an entry the failure that another process has noted, and report it."""
        entry.failure = failure
        self.reports.adopted(entry, failure)

    def install(
        self, entry: TokenEntry, record: TokenRecord, *, version: int, left: float, at: Instant, shared: bool
    ) -> bool:
        """Give an entry the token that was fetched for it.

        Return whether that ends the refresh, with a token or a failure; False if its version was invalidated meanwhile.
        """
        if self._take(entry, record, version=version, left=left, at=at, shared=shared) is not None:
            self._end_failure(entry)
            return True
        if version <= entry.known_version:
            return False
        self.fail(entry, TokenUnavailable("the token had already expired when it arrived"))
        return True

    def adopt(self, entry: TokenEntry, found: Found, at: Instant) -> bool:
        """Take a token that another process has stored, if it is better than the entry's. Return whether it was."""
        if found.record.value in self._rejected:
            return False
        token = self._take(entry, found.record, version=found.version, left=found.left, at=at, shared=True)
        if token is None:
            return False
        self.observe(TokenAdopted(entry.name, entry.credential))
        now, failure = Instant(self.clock), entry.failure
        if failure is None or not entry.in_backoff(now) or token.fresh(now):
            self._end_failure(entry)
        else:
            # It is due for a refresh, and the provider's backoff holds whatever token is stored. A new object, so that
            # entries that only passed this failure on are no longer in backoff: they need the token, not a refresh.
            entry.failure = copy(failure)
        return True

    async def adopt_stored(self, entry: TokenEntry) -> bool:
        """Take what another process has stored, if it is better than the entry's token; never ask the provider.

        A failure that was read from a note ends with the note: it is deleted when an operator invalidates the token,
        and is lost with the data of Redis. Return whether an operator wants the provider to be asked now.
        """
        if self.store is None or entry.keys is None:
            return False
        at, failure = Instant(self.clock), entry.failure
        try:
            found, _invalid = await self.store.read(entry.keys)
            noted, retry = (True, None) if failure is None else await self.store.noted(entry.keys)
        except (RedisUnavailable, Unreadable):
            return False
        if failure is None or entry.failure is not failure:
            retry = None
        elif retry is not None:
            # A failure that came after the request has its own backoff.
            new = retry.version > entry.retried_version and retry.age < at.mono - failure.failed_at
            retry = retry if new else None
        if failure is not None and entry.failure is failure and (retry is not None or (failure.noted and not noted)):
            # A new object, so that the failures of entries that only passed this one on end, too.
            entry.failure = ended = copy(failure)
            ended.end_backoff(at.mono)
        if retry is not None:
            entry.retried_version = retry.version
            self.log.event("action", _ACTION, retry.by, "retry", entry.label, provider=entry.name)
        if found is not None:
            self.adopt(entry, found, at)
        return retry is not None and entry.failure is not None

    def _take(
        self, entry: TokenEntry, record: TokenRecord, *, version: int, left: float, at: Instant, shared: bool
    ) -> CachedToken | None:
        if version <= entry.known_version:
            return None
        if entry.current is not None:
            record = entry.current.merged(record, left, at)
        token = CachedToken(entry, record, version=version, left=left, at=at, shared=shared)
        if not token.usable(Instant(self.clock)):
            return None
        entry.current = token
        return token

    def _end_failure(self, entry: TokenEntry) -> None:
        entry.failure = None
        if entry.client is not None:
            entry.client.grant()
            if entry.client.failure is not None:
                return  # other callers still get no token
        shown = entry.client or entry
        self.log.recovered(shown.log_kind, "%s: there is a token again", shown.label, provider=entry.name)
