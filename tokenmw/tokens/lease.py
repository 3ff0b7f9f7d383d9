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

from tokenmw.errors import TokenUnavailable
from tokenmw.shared.guard import SharedUnavailable
from tokenmw.shared.sealing import Unreadable
from tokenmw.shared.token_store import Busy, Dead, Found, Leased, Noted, Stored, TokenRecord
from tokenmw.tokens.asking import record_of
from tokenmw.tokens.failures import Failure
from tokenmw.tokens.slot import Moment

if TYPE_CHECKING:
    from tokenmw.limits import Limits
    from tokenmw.shared.token_store import TokenKeys
    from tokenmw.tokens.asking import Asking
    from tokenmw.tokens.slot import Slot

__all__ = ["Renewal", "TokenStore"]

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
    ) -> Found | Leased | Busy | Noted:
        """Return a token above version `known`, else the lease, else who is in the way."""
        ...

    async def commit(
        self, keys: TokenKeys, owner: str, record: TokenRecord, /, *, version: int, left: float
    ) -> Stored | Found | Busy | Dead:
        """Store a token under the lease, or without any if it is newer than what is there."""
        ...

    async def release(self, keys: TokenKeys, owner: str, /, *, version: int, note: bytes, seconds: float) -> None:
        """Give the lease back, with a note for the others."""
        ...

    async def bury(self, keys: TokenKeys, /, *, version: int | None, known: int, left: float) -> Found | Dead:
        """Declare a version and all before it invalid."""
        ...


class Renewal:
    """Renews slots; one call is one flight."""

    __slots__ = ("_asking", "_clock", "_limits", "_single_process", "_store")

    def __init__(self, asking: Asking, *, store: TokenStore | None, limits: Limits, single_process: bool) -> None:
        self._asking = asking
        self._clock = asking.clock
        self._store = store
        self._limits = limits
        self._single_process = single_process

    async def __call__(self, slot: Slot) -> None:
        """Give a slot a new generation or a failure."""
        began = self._clock.monotonic()
        try:
            if self._store is None or slot.keys is None:
                await self._alone(slot, began=began)
            else:
                await _Lease(self._asking, self._store, slot, slot.keys, limits=self._limits).run()
        except SharedUnavailable:
            await self._alone(slot, began=began)
        except Unreadable:
            # What stands in Redis is sealed by a secret that others have: it is theirs, so ours is not offered.
            await self._alone(slot, began=began, offer=False)
        except Exception as error:  # noqa: BLE001  a slip in a provider's class must not look like a token that ended
            self._asking.fail(slot, error)

    async def _alone(self, slot: Slot, *, began: float, offer: bool = True) -> None:
        leases = self._store is not None and slot.keys is not None
        if slot.provider.exclusive and (leases or not self._single_process):
            self._asking.fail(slot, TokenUnavailable(_ONLY_SHARED))
            return
        while True:
            asked = Moment(self._clock)
            # Now, and not with the answer: what is declared invalid while it is under way must be above it.
            version = max(int(asked.wall * 1_000_000), slot.known + 1)
            grant = await self._asking.ask(slot, version=version)
            if grant is None or self._asking.install(
                slot, record_of(grant), version=version, left=grant.expires_in, at=asked, shared=not offer
            ):
                return
            if slot.now is not None:
                return  # a newer one has come meanwhile
            if self._clock.monotonic() - began >= self._limits.wait_seconds:
                self._asking.fail(slot, TokenUnavailable("each one was declared invalid while it was fetched"))
                return


class _Lease:
    """One flight with Redis."""

    __slots__ = ("_asking", "_clock", "_keys", "_known", "_limits", "_owner", "_slot", "_store")

    def __init__(self, asking: Asking, store: TokenStore, slot: Slot, keys: TokenKeys, *, limits: Limits) -> None:
        self._asking = asking
        self._store = store
        self._slot = slot
        self._keys = keys
        self._clock = asking.clock
        self._limits = limits
        self._owner = secrets.token_hex(8)
        self._known = slot.known

    async def run(self) -> None:
        began = self._clock.monotonic()
        while True:
            at = Moment(self._clock)
            # What was declared invalid since counts, and not a token that has come since: it ends this flight.
            known = max(self._known, self._slot.dead)
            seat = await self._store.acquire(self._keys, self._owner, known=known, seconds=self._limits.lease_seconds)
            if isinstance(seat, Found):
                if self._asking.adopt(self._slot, seat, at) or self._has(seat, at):
                    return
                self._known = max(self._known, seat.version)  # rejected, or about to end: I want one above it
                continue
            if isinstance(seat, Noted):
                self._slot.failure = Failure.from_note(
                    seat.note, left=seat.left, before=self._slot.failure, now=self._clock.monotonic()
                )
                return
            if isinstance(seat, Leased) and await self._fetch(seat.version):
                return
            waited = self._clock.monotonic() - began
            if waited >= self._limits.wait_seconds:
                self._asking.fail(self._slot, TokenUnavailable("another process has been fetching it for too long"))
                return
            look = min(_LONGEST_LOOK, max(_SHORTEST_LOOK, waited / 10))
            left = seat.left if isinstance(seat, Busy) else look
            await self._clock.sleep(max(0.001, min(left, look * random.uniform(0.6, 1.0))))

    def _has(self, found: Found, at: Moment) -> bool:
        # Housekeeping, which looks at tokens in use, may have been faster than this flight.
        now = self._slot.now
        return now is not None and now.version >= found.version and now.usable(at)

    async def _fetch(self, version: int) -> bool:
        """Ask the provider under the lease, and commit. Return whether the flight is over."""
        try:
            return await self._ask_and_commit(version)
        except BaseException:
            await self._give_back(version)  # closing, or a fault: the others need not wait for the lease to lapse
            raise

    async def _ask_and_commit(self, version: int) -> bool:
        asked = Moment(self._clock)
        grant = await self._asking.ask(self._slot, version=version)
        if grant is None:
            await self._give_back(version, failure=self._slot.failure)
            # I may have been stopped past my lease, and so past my patience: then another one has asked meanwhile.
            await self._asking.look(self._slot)
            return True
        record = record_of(grant)
        if self._slot.now is not None:
            record = self._slot.now.quiet_if_repeated(record, grant.expires_in, asked)
        left = grant.expires_in - Moment(self._clock).since(asked)
        if left <= 0:
            await self._give_back(version)
            over = self._install(record, version, grant.expires_in, asked, shared=False)
            await self._asking.look(self._slot)
            return over
        try:
            answer = await self._store.commit(self._keys, self._owner, record, version=version, left=left)
        except (SharedUnavailable, Unreadable):
            return self._install(record, version, grant.expires_in, asked, shared=False)
        if isinstance(answer, Found) and self._asking.adopt(self._slot, answer, Moment(self._clock)):
            return True
        if isinstance(answer, (Busy, Dead)):
            # I was paused past my lease and another one asks now, or the token was declared invalid meanwhile:
            # either way what counts is what comes next.
            return False
        return self._install(record, version, grant.expires_in, asked, shared=isinstance(answer, Stored))

    def _install(self, record: TokenRecord, version: int, left: float, at: Moment, *, shared: bool) -> bool:
        return self._asking.install(self._slot, record, version=version, left=left, at=at, shared=shared)

    async def _give_back(self, version: int, *, failure: Failure | None = None) -> None:
        note, seconds = b"", 1.0
        if failure is not None and failure.said:
            note, seconds = failure.note(), failure.until - self._clock.monotonic()
        try:
            await self._store.release(self._keys, self._owner, version=version, note=note, seconds=seconds)
        except (SharedUnavailable, Unreadable):
            return  # it lapses by itself
