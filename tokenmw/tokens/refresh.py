"""One refresh: one process asks the provider, the others adopt its token.

    1. `acquire`, one script: a newer token that is already stored ends the refresh; else take the lease, if it is free.
    2. Another process holds the lease: poll. The token is polled, and the lease only where there is no token, so that
       no process queues for a lock that is useless once the token is stored.
    3. With the lease: ask the provider (5 s) before the lease expires (6 s), then `commit`. A commit is refused if the
       lease has expired and another process holds it: a process that was paused cannot overwrite what came later.
    4. Redis unavailable, at any step: ask alone and mark the token unshared; housekeeping uploads it later.

The lease carries a fencing version, above every version that Redis or this process has seen. Nothing here runs in a
request's task, so a cancelled request leaves no lease behind; closing the broker releases it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from tokenmw.clock import Instant
from tokenmw.errors import RequestError, TokenUnavailable
from tokenmw.observe.error_place import place_of
from tokenmw.observe.events import TokenAdopted, TokenFetched
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import (
    Busy,
    ClockMismatch,
    FailureNoted,
    Found,
    Leased,
    Stored,
    TokenRecord,
    Tombstoned,
)
from tokenmw.tokens.entry import CachedToken
from tokenmw.tokens.failures import Failure, backoff
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.redis.token_store import TokenKeys
    from tokenmw.tokens.cache import RejectedTokens
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.store import TokenStore

__all__ = ["Refresher", "new_version", "record_of"]

# Seconds between two polls for another process's token: a tenth of the time waited, so that polling adds no more than
# that to what the provider takes, within these bounds.
_MIN_POLL: Final = 0.02
_MAX_POLL: Final = 0.08
_CANCEL_SECONDS: Final = 1.0  # for provider code that ignores its cancellation
_LEASE_ONLY: Final = (
    "each new token of this provider invalidates the one before, so only the holder of a lease in Redis may fetch one, "
    "and Redis is unavailable"
)


class Refresher(Unpicklable):
    """Gives entries new tokens or failures: from the provider, or from what another process has stored."""

    __slots__ = ("_limits", "_log", "_observe", "_rejected", "_single_process", "clock", "store")

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
        self._log = log
        self._observe = observe
        self._single_process = single_process
        self.store = store
        self.clock = clock

    async def refresh(self, entry: TokenEntry, http: TokenHTTP) -> None:
        """Give an entry a new token or a failure."""
        started = self.clock.monotonic()
        try:
            if self.store is None or entry.keys is None:
                await self._refresh_alone(entry, http, started=started)
            else:
                await _LeasedRefresh(self, self.store, entry, entry.keys, http, limits=self._limits).run()
        except RedisUnavailable:
            await self._refresh_alone(entry, http, started=started)
        except Unreadable:
            # Other instances have stored a token sealed by a secret that this one lacks: ours is not uploaded.
            await self._refresh_alone(entry, http, started=started, upload=False)
        except Exception as error:  # noqa: BLE001  an error in a provider's class must not look like an expired token
            self.fail(entry, error)

    async def _refresh_alone(self, entry: TokenEntry, http: TokenHTTP, *, started: float, upload: bool = True) -> None:
        has_leases = self.store is not None and entry.keys is not None
        if entry.provider.exclusive and (has_leases or not self._single_process):
            self.fail(entry, TokenUnavailable(_LEASE_ONLY))
            return
        while True:
            asked = Instant(self.clock)
            # Chosen before the request: an invalidation that comes while it runs must be above this version.
            version = new_version(asked, entry.known_version)
            grant = await self.ask(entry, http, version=version)
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
        entry.requested_version = version
        started, seconds = self.clock.monotonic(), self._limits.fetch_seconds
        fetch = asyncio.ensure_future(_call(entry, http))
        timer = asyncio.ensure_future(self.clock.sleep(seconds))
        try:
            await asyncio.wait({fetch, timer}, return_when=asyncio.FIRST_COMPLETED)
            error = _error_of(fetch, seconds=seconds)
            if error is not None:
                self.fail(entry, error, started=started)
                return None
        finally:
            await _cancel(fetch, timer)
        grant = fetch.result()
        repeated = entry.current is not None and entry.current.token.value == grant.value
        took = self.clock.monotonic() - started
        self._observe(TokenFetched(entry.name, "repeated" if repeated else "granted", took))
        if self._rejected.discard(grant.value):
            # The provider has granted again a token that an API rejected: another request would not change that.
            entry.ignore_reports_until = self.clock.monotonic() + backoff(entry.rejections + 1)
        return grant

    def fail(self, entry: TokenEntry, error: BaseException, *, started: float | None = None) -> None:
        """Set the entry's failure, and log it."""
        now = self.clock.monotonic()
        place = error.place if isinstance(error, RequestError) else place_of(error, called=entry.provider)
        entry.failure = failure = Failure.from_error(error, before=entry.failure, now=now)
        failure.place = place
        kind = "credential rejected" if failure.permanent else "no token"
        at = f" (at {place})" if place else ""
        self._log.problem(
            f"provider:{entry.name}",
            "%s: %s: %s%s",
            entry.name,
            kind,
            failure.detail,
            at,
            provider=entry.name,
            reason=kind,
        )
        if started is not None:
            self._observe(TokenFetched(entry.name, "rejected" if failure.permanent else "unavailable", now - started))

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
        self._observe(TokenAdopted(entry.name))
        now, failure = Instant(self.clock), entry.failure
        if failure is None or not failure.in_backoff(now.mono) or token.fresh(now):
            self._end_failure(entry)
        else:
            # It is due for a refresh, and the provider's backoff holds whatever token is stored. A new object, so that
            # entries that only passed this failure on are no longer in backoff: they need the token, not a refresh.
            entry.failure = copy(failure)
        return True

    async def adopt_stored(self, entry: TokenEntry) -> None:
        """Take what another process has stored, if it is better than the entry's token; never ask the provider.

        A failure that was read from a note ends with the note: it is deleted when an operator invalidates the token,
        and is lost with the data of Redis.
        """
        if self.store is None or entry.keys is None:
            return
        at, failure = Instant(self.clock), entry.failure
        try:
            found, _invalid = await self.store.read(entry.keys)
            noted = failure is None or not failure.noted or await self.store.has_note(entry.keys)
        except (RedisUnavailable, Unreadable):
            return
        if failure is not None and not noted and entry.failure is failure:
            # A new object, so that the failures of entries that only passed this one on end, too.
            entry.failure = ended = copy(failure)
            ended.retry_at = min(failure.retry_at, at.mono)
        if found is not None:
            self.adopt(entry, found, at)

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
        self._log.recovered(f"provider:{entry.name}", "%s: there is a token again", entry.name, provider=entry.name)


class _LeasedRefresh(Unpicklable):
    """One refresh over Redis."""

    __slots__ = ("_clock", "_entry", "_http", "_keys", "_known", "_limits", "_owner", "_refresher", "_store")

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

    async def run(self) -> None:
        started = self._clock.monotonic()
        while True:
            at = Instant(self._clock)
            # Versions invalidated since the start are excluded. A token adopted since is not: it ends this refresh.
            known = max(self._known, self._entry.invalid_version)
            reply = await self._store.acquire(self._keys, self._owner, known=known, seconds=self._limits.lease_seconds)
            if isinstance(reply, Found):
                if self._refresher.adopt(self._entry, reply, at) or self._already_adopted(reply, at):
                    return
                self._known = max(self._known, reply.version)  # rejected or about to expire: one above it is needed
                continue
            if isinstance(reply, ClockMismatch):
                self._entry.redate(reply.server_time, at)
                self._known = self._entry.known_version
            if isinstance(reply, FailureNoted):
                self._entry.failure = Failure.from_note(
                    reply.note, left=reply.left, before=self._entry.failure, now=self._clock.monotonic()
                )
                return
            if isinstance(reply, Leased) and await self._fetch(reply.version):
                return
            waited = self._clock.monotonic() - started
            if waited >= self._limits.wait_seconds:
                text = f"another process did not store a token within {self._limits.wait_seconds:g} s"
                self._refresher.fail(self._entry, TokenUnavailable(text))
                return
            poll = min(_MAX_POLL, max(_MIN_POLL, waited / 10))
            left = reply.left if isinstance(reply, Busy) else poll
            await self._clock.sleep(max(0.001, min(left, poll * random.uniform(0.6, 1.0))))

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
            await self._release(version)
            done = self._install(record, version, grant.expires_in, asked, shared=False)
            await refresher.adopt_stored(entry)
            return done
        try:
            reply = await self._store.commit(self._keys, self._owner, record, version=version, left=left)
        except (RedisUnavailable, Unreadable):
            return self._install(record, version, grant.expires_in, asked, shared=False)
        if isinstance(reply, Found) and refresher.adopt(entry, reply, Instant(self._clock)):
            return True
        if isinstance(reply, (Busy, Tombstoned)):
            # The lease expired during a pause and another process asks now, or the token was invalidated meanwhile.
            # In both cases the next token counts.
            return False
        # After a `ClockMismatch` it is unshared, and the upload gives it another version.
        return self._install(record, version, grant.expires_in, asked, shared=isinstance(reply, Stored))

    def _install(self, record: TokenRecord, version: int, left: float, at: Instant, *, shared: bool) -> bool:
        return self._refresher.install(self._entry, record, version=version, left=left, at=at, shared=shared)

    async def _release(self, version: int, *, failure: Failure | None = None) -> None:
        note, seconds = b"", 1.0
        if failure is not None and failure.shareable:
            note, seconds = failure.failure_note(), failure.retry_at - self._clock.monotonic()
        try:
            await self._store.release(self._keys, self._owner, version=version, note=note, seconds=seconds)
        except (RedisUnavailable, Unreadable):
            return  # it expires by itself


def record_of(grant: Grant) -> TokenRecord:
    """Return what is stored of a grant."""
    return TokenRecord(grant.value, grant.token_type, grant.expires_in, None, grant.extra)


def new_version(at: Instant, *known: int) -> int:
    """Return a version made without Redis: microseconds since 1970, above every known version."""
    return max(int(at.wall * 1_000_000), *(version + 1 for version in known))


async def _call(entry: TokenEntry, http: TokenHTTP) -> Grant:
    # In the task, so that what a provider raises before its first await is a failure like any other.
    provider = entry.provider
    return await provider.fetch(http if provider.allow_private else http.public_only())


def _error_of(fetch: asyncio.Future[Any], *, seconds: float) -> BaseException | None:
    if not fetch.done():
        return TokenUnavailable(f"the provider did not answer within {seconds:g} s")
    if fetch.cancelled():
        return TokenUnavailable("the provider's fetch was cancelled by its own code")
    error = fetch.exception()
    if error is None and not isinstance(fetch.result(), Grant):
        kind = type(fetch.result()).__name__
        return TokenUnavailable(f"the provider's fetch must return a Grant, and returned {kind}")
    return error


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # retrieved, so that the event loop never reports it
