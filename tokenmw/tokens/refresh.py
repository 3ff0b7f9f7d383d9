"""How one flight gets a token: one process of all asks the provider, and the others take what it got.

    1. Acquire, in one script: a newer token that is there already ends the flight; else the lease, if it is free.
    2. Held by another: wait a little, look again. What is polled is the token, and the lease only where there is
       none, so nobody queues for a lock that is of no use once the token is there.
    3. With the lease: ask the provider (5 s) before the lease lapses (6 s), then commit. A commit is refused if the
       lease has lapsed and another holds it: a process that was paused and wakes late does not overwrite.
    4. Redis away, at any step: ask alone and mark the token unshared; housekeeping offers it later.

The lease carries a version, above every version that Redis or this process has seen. Nothing here runs in a
request's task, so a request that is cancelled leaves no lease behind; closing gives it back.
"""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING, Final, Protocol

from tokenmw.clock import Instant
from tokenmw.errors import TokenUnavailable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import Busy, FailureNoted, Found, Leased, Stored, TokenRecord, Tombstoned
from tokenmw.tokens.failures import Failure

if TYPE_CHECKING:
    from tokenmw.limits import Limits
    from tokenmw.redis.token_store import TokenKeys
    from tokenmw.tokens.entry import TokenEntry
import asyncio
from typing import TYPE_CHECKING, Any

from tokenmw.errors import RequestError
from tokenmw.observe.error_place import place_of
from tokenmw.observe.events import TokenAdopted, TokenFetched
from tokenmw.tokens.entry import CachedToken
from tokenmw.tokens.failures import pause
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.tokens.cache import RejectedTokens
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["Refresher", "Renewal", "TokenStore", "record_of"]

# Seconds between two looks for another process's token: a tenth of what was waited, so that looking adds no more than
# that to what the provider took, within these bounds.
_SHORTEST_LOOK: Final = 0.02
_LONGEST_LOOK: Final = 0.08
_ONLY_SHARED: Final = (
    "each new token of this provider kills the one before, so only the holder of a lease in Redis may ask, and Redis "
    "cannot be reached"
)


class TokenStore(Protocol):
    """What a renewal needs of the shared layer; `shared.token_store.RedisTokenStore` is one."""

    async def read(self, keys: TokenKeys, /) -> tuple[Found | None, int]:
        """Return the token that is there, and the highest version declared invalid."""
        ...

    async def acquire(
        self, keys: TokenKeys, owner: str, /, *, known: int, seconds: float
    ) -> Found | Leased | Busy | FailureNoted:
        """Return a token above version `known`, else the lease, else who is in the way."""
        ...

    async def commit(
        self, keys: TokenKeys, owner: str, record: TokenRecord, /, *, version: int, left: float
    ) -> Stored | Found | Busy | Tombstoned:
        """Store a token under the lease, or without any if it is newer than what is there."""
        ...

    async def release(self, keys: TokenKeys, owner: str, /, *, version: int, note: bytes, seconds: float) -> None:
        """Give the lease back, with a note for the others."""
        ...

    async def write_tombstone(
        self, keys: TokenKeys, /, *, version: int | None, known: int, left: float
    ) -> Found | Tombstoned:
        """Declare a version and all before it invalid."""
        ...


class Renewal:
    """Renews entries; one call is one flight."""

    __slots__ = ("_asking", "_clock", "_limits", "_single_process", "_store")

    def __init__(self, asking: Refresher, *, store: TokenStore | None, limits: Limits, single_process: bool) -> None:
        self._asking = asking
        self._clock = asking.clock
        self._store = store
        self._limits = limits
        self._single_process = single_process

    async def __call__(self, entry: TokenEntry) -> None:
        """Give a entry a new generation or a failure."""
        began = self._clock.monotonic()
        try:
            if self._store is None or entry.keys is None:
                await self._alone(entry, began=began)
            else:
                await _Lease(self._asking, self._store, entry, entry.keys, limits=self._limits).run()
        except RedisUnavailable:
            await self._alone(entry, began=began)
        except Unreadable:
            # What stands in Redis is sealed by a secret that others have: it is theirs, so ours is not offered.
            await self._alone(entry, began=began, offer=False)
        except Exception as error:  # noqa: BLE001  a slip in a provider's class must not look like a token that ended
            self._asking.fail(entry, error)

    async def _alone(self, entry: TokenEntry, *, began: float, offer: bool = True) -> None:
        leases = self._store is not None and entry.keys is not None
        if entry.provider.exclusive and (leases or not self._single_process):
            self._asking.fail(entry, TokenUnavailable(_ONLY_SHARED))
            return
        while True:
            asked = Instant(self._clock)
            # Now, and not with the answer: what is declared invalid while it is under way must be above it.
            version = max(int(asked.wall * 1_000_000), entry.known + 1)
            grant = await self._asking.ask(entry, version=version)
            if grant is None or self._asking.install(
                entry, record_of(grant), version=version, left=grant.expires_in, at=asked, shared=not offer
            ):
                return
            if entry.current is not None:
                return  # a newer one has come meanwhile
            if self._clock.monotonic() - began >= self._limits.wait_seconds:
                self._asking.fail(entry, TokenUnavailable("each one was declared invalid while it was fetched"))
                return


class _Lease:
    """One flight with Redis."""

    __slots__ = ("_asking", "_clock", "_entry", "_keys", "_known", "_limits", "_owner", "_store")

    def __init__(
        self, asking: Refresher, store: TokenStore, entry: TokenEntry, keys: TokenKeys, *, limits: Limits
    ) -> None:
        self._asking = asking
        self._store = store
        self._entry = entry
        self._keys = keys
        self._clock = asking.clock
        self._limits = limits
        self._owner = secrets.token_hex(8)
        self._known = entry.known

    async def run(self) -> None:
        began = self._clock.monotonic()
        while True:
            at = Instant(self._clock)
            # What was declared invalid since counts, and not a token that has come since: it ends this flight.
            known = max(self._known, self._entry.dead)
            seat = await self._store.acquire(self._keys, self._owner, known=known, seconds=self._limits.lease_seconds)
            if isinstance(seat, Found):
                if self._asking.adopt(self._entry, seat, at) or self._has(seat, at):
                    return
                self._known = max(self._known, seat.version)  # rejected, or about to end: I want one above it
                continue
            if isinstance(seat, FailureNoted):
                self._entry.failure = Failure.from_note(
                    seat.note, left=seat.left, before=self._entry.failure, now=self._clock.monotonic()
                )
                return
            if isinstance(seat, Leased) and await self._fetch(seat.version):
                return
            waited = self._clock.monotonic() - began
            if waited >= self._limits.wait_seconds:
                self._asking.fail(self._entry, TokenUnavailable("another process has been fetching it for too long"))
                return
            look = min(_LONGEST_LOOK, max(_SHORTEST_LOOK, waited / 10))
            left = seat.left if isinstance(seat, Busy) else look
            await self._clock.sleep(max(0.001, min(left, look * random.uniform(0.6, 1.0))))

    def _has(self, found: Found, at: Instant) -> bool:
        # Housekeeping, which looks at tokens in use, may have been faster than this flight.
        now = self._entry.current
        return now is not None and now.version >= found.version and now.usable(at)

    async def _fetch(self, version: int) -> bool:
        """Ask the provider under the lease, and commit. Return whether the flight is over."""
        try:
            return await self._ask_and_commit(version)
        except BaseException:
            await self._give_back(version)  # closing, or a fault: the others need not wait for the lease to lapse
            raise

    async def _ask_and_commit(self, version: int) -> bool:
        asked = Instant(self._clock)
        grant = await self._asking.ask(self._entry, version=version)
        if grant is None:
            await self._give_back(version, failure=self._entry.failure)
            # I may have been stopped past my lease, and so past my patience: then another one has asked meanwhile.
            await self._asking.look(self._entry)
            return True
        record = record_of(grant)
        if self._entry.current is not None:
            record = self._entry.current.unless_repeated(record, grant.expires_in, asked)
        left = grant.expires_in - Instant(self._clock).since(asked)
        if left <= 0:
            await self._give_back(version)
            over = self._install(record, version, grant.expires_in, asked, shared=False)
            await self._asking.look(self._entry)
            return over
        try:
            answer = await self._store.commit(self._keys, self._owner, record, version=version, left=left)
        except (RedisUnavailable, Unreadable):
            return self._install(record, version, grant.expires_in, asked, shared=False)
        if isinstance(answer, Found) and self._asking.adopt(self._entry, answer, Instant(self._clock)):
            return True
        if isinstance(answer, (Busy, Tombstoned)):
            # I was paused past my lease and another one asks now, or the token was declared invalid meanwhile:
            # either way what counts is what comes next.
            return False
        return self._install(record, version, grant.expires_in, asked, shared=isinstance(answer, Stored))

    def _install(self, record: TokenRecord, version: int, left: float, at: Instant, *, shared: bool) -> bool:
        return self._asking.install(self._entry, record, version=version, left=left, at=at, shared=shared)

    async def _give_back(self, version: int, *, failure: Failure | None = None) -> None:
        note, seconds = b"", 1.0
        if failure is not None and failure.said:
            note, seconds = failure.note(), failure.until - self._clock.monotonic()
        try:
            await self._store.release(self._keys, self._owner, version=version, note=note, seconds=seconds)
        except (RedisUnavailable, Unreadable):
            return  # it lapses by itself


_PATIENCE: Final = 1.0  # seconds for a provider's code that does not heed its cancellation


class Refresher:
    """Fills entries: from the provider, or from what another process has stored."""

    __slots__ = ("_http", "_limits", "_log", "_observe", "_rejected", "_store", "clock")

    def __init__(
        self,
        *,
        http: TokenHTTP,
        store: TokenStore | None,
        rejected: RejectedTokens,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        observe: Callable[[Event], None],
    ) -> None:
        self._http = http
        self._store = store
        self._rejected = rejected
        self._limits = limits
        self._log = log
        self._observe = observe
        self.clock = clock

    async def ask(self, entry: TokenEntry, *, version: int) -> Grant | None:
        """Ask the provider once, within `fetch_seconds`, for a version; None: the entry has the failure."""
        entry.asked = version
        began = self.clock.monotonic()
        fetch = asyncio.ensure_future(_called(entry, self._http))
        timer = asyncio.ensure_future(self.clock.sleep(self._limits.fetch_seconds))
        try:
            await asyncio.wait({fetch, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not fetch.done():
                seconds = self._limits.fetch_seconds
                self.fail(entry, TokenUnavailable(f"the provider did not answer within {seconds:g} s"), began=began)
                return None
            error = _fault_of(fetch)
            if error is not None:
                self.fail(entry, error, began=began)
                return None
            grant = fetch.result()
        finally:
            await _end(fetch, timer)
        seconds = self.clock.monotonic() - began
        repeated = entry.current is not None and entry.current.token.value == grant.value
        self._observe(TokenFetched(entry.name, "repeated" if repeated else "granted", seconds))
        if self._rejected.forgive(grant.value):
            # The provider stands by a token that an API refused: asking it again at once would not help.
            entry.ignore_reports_until = self.clock.monotonic() + pause(entry.rejections + 1)
        return grant

    def fail(self, entry: TokenEntry, error: BaseException, *, began: float | None = None) -> None:
        """Note a failure in the entry, and tell the operator."""
        now = self.clock.monotonic()
        place = error.place if isinstance(error, RequestError) else place_of(error, called=entry.provider)
        entry.failure = failure = Failure.of(error, before=entry.failure, now=now)
        failure.place = place
        kind = "credential rejected" if failure.permanent else "no token"
        at = f" (at {place})" if place else ""
        self._log.problem(f"provider:{entry.name}", "%s: %s: %s%s", entry.name, kind, failure.detail, at)
        if began is not None:
            self._observe(TokenFetched(entry.name, "rejected" if failure.permanent else "unavailable", now - began))

    def install(
        self, entry: TokenEntry, record: TokenRecord, *, version: int, left: float, at: Instant, shared: bool
    ) -> bool:
        """Give a entry the token that was fetched for it.

        Return whether that settles it, with a token or a failure; False: its version was declared invalid meanwhile.
        """
        if self._take(entry, record, version=version, left=left, at=at, shared=shared):
            return True
        if version <= entry.known:
            return False
        self.fail(entry, TokenUnavailable("the token had already expired when it arrived"))
        return True

    def adopt(self, entry: TokenEntry, found: Found, at: Instant) -> bool:
        """Take a token that another process has stored, if it is a better one than the entry has."""
        if found.record.value in self._rejected:
            return False
        taken = self._take(entry, found.record, version=found.version, left=found.left, at=at, shared=True)
        if taken:
            self._observe(TokenAdopted(entry.name))
        return taken

    async def look(self, entry: TokenEntry) -> None:
        """Take what another process has stored, if it is better than what the entry has, and ask nobody."""
        if self._store is None or entry.keys is None:
            return
        at = Instant(self.clock)
        try:
            found, _dead = await self._store.read(entry.keys)
        except (RedisUnavailable, Unreadable):
            return
        if found is not None:
            self.adopt(entry, found, at)

    def _take(
        self, entry: TokenEntry, record: TokenRecord, *, version: int, left: float, at: Instant, shared: bool
    ) -> bool:
        if version <= entry.known:
            return False
        if entry.current is not None:
            record = entry.current.unless_repeated(record, left, at)
        generation = CachedToken(entry, record, version=version, left=left, at=at, shared=shared)
        if not generation.usable(Instant(self.clock)):
            return False
        entry.current = generation
        entry.failure = None
        self._log.over(f"provider:{entry.name}", "%s: there is a token again.", entry.name)
        return True


def record_of(grant: Grant) -> TokenRecord:
    """Return what is stored of a grant."""
    return TokenRecord(grant.value, grant.token_type, grant.expires_in, None, grant.extra)


async def _called(entry: TokenEntry, http: TokenHTTP) -> Grant:
    # In the task, so that what a provider raises before its first await is a failure like any other.
    return await entry.provider.fetch(http)


def _fault_of(fetch: asyncio.Future[Any]) -> BaseException | None:
    if fetch.cancelled():
        return TokenUnavailable("the provider's fetch was cancelled by its own code")
    error = fetch.exception()
    if error is None and not isinstance(fetch.result(), Grant):
        kind = type(fetch.result()).__name__
        return TokenUnavailable(f"the provider's fetch must return a Grant, and returned {kind}")
    return error


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_PATIENCE)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that the loop never reports it as not retrieved
