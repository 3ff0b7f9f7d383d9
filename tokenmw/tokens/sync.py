"""Keeping local copies and Redis in step: invalidation by comparison, the look at tokens in use, offers.

What was fetched or declared invalid without Redis is unshared, and is offered until Redis has it. Versions decide:
an older token never replaces a newer one, a token declared invalid never comes back.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from tokenmw.clock import Instant
from tokenmw.observe.events import TokenInvalidated
from tokenmw.redaction import without_locals
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import Found, Stored, Tombstoned
from tokenmw.tokens.entry import TokenEntry
from tokenmw.tokens.failures import pause
from tokenmw.tokens.refresh import record_of
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.redis.token_store import TokenKeys
    from tokenmw.tokens.cache import RejectedTokens
    from tokenmw.tokens.entry import CachedToken
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.refresh import Refresher, TokenStore
    from tokenmw.values import Grant, Token

__all__ = ["TokenSync"]

_TOO_YOUNG: Final = 5.0  # seconds; an API that refuses so young a token has perhaps not heard of it yet
_FORGIVEN: Final = 600.0  # seconds without a report after which the next one is the first again


class TokenSync:
    """Compares entries with Redis. The entries outlive an event loop; `start` stands at its beginning."""

    __slots__ = ("_asking", "_clock", "_limits", "_manager", "_observe", "_rejected", "_store")

    def __init__(
        self,
        *,
        manager: TokenManager,
        rejected: RejectedTokens,
        limits: Limits,
        clock: Clock,
        observe: Callable[[Event], None],
    ) -> None:
        self._manager = manager
        self._rejected = rejected
        self._limits = limits
        self._clock = clock
        self._observe = observe
        self._store: TokenStore | None = None
        self._asking: Refresher | None = None

    def start(self, asking: Refresher, *, store: TokenStore | None) -> None:
        """Begin to compare, in the running event loop."""
        self._asking = asking
        self._store = store

    async def invalidate(self, token: Token) -> bool:
        """Drop a token that an API refused, if it is still the current one. Return whether it was dropped.

        A report about an older token, about one fetched less than 5 s ago, or about one that the provider has just
        repeated, causes nothing; further reports count after pauses that grow like those after failures.
        """
        origin = token._origin
        if not isinstance(origin, TokenEntry):
            return False
        entry, now = origin, Instant(self._clock)
        current = entry.current
        if current is None or current.token.value != token.value:
            return False
        if current.age(now) < _TOO_YOUNG or now.mono < entry.ignore_reports_until:
            return False
        if now.mono > entry.ignore_reports_until + _FORGIVEN:
            entry.rejections = 0
        entry.rejections += 1
        entry.ignore_reports_until = now.mono + pause(entry.rejections)
        self._drop(entry, current, current.version)
        await self._bury(entry, version=entry.dead)
        return True

    @without_locals
    async def invalidate_current(self, entry: TokenEntry) -> None:
        """Drop whatever token a provider has or is asked for, here and in Redis, and let it be asked again at once."""
        now = Instant(self._clock)
        if entry.current is not None:
            self._drop(entry, entry.current, entry.current.version)
        # And what is being asked for at this moment, here or elsewhere: nobody knows yet how long it will live. By the
        # clock alone it would be missed: what is asked for here may be ahead of it.
        entry.mark_invalid(max(int(now.wall * 1_000_000), entry.asked), until=now.mono + MAX_LIFETIME)
        entry.failure = None
        entry.ignore_reports_until = now.mono
        await self._bury(entry, version=None)

    async def hand_in(self, entry: TokenEntry, grant: Grant) -> None:
        """Give a entry a token that came by itself, above every version that Redis or this process has."""
        if self._asking is None:
            return
        known = 0
        if self._store is not None and entry.keys is not None:
            try:
                found, known = await self._store.read(entry.keys)
            except (RedisUnavailable, Unreadable):
                found = None  # by its clock, this process is as likely right as any other
            known = max(known, 0 if found is None else found.version)
        at = Instant(self._clock)
        version = max(int(at.wall * 1_000_000), entry.known + 1, known + 1)
        self._asking.install(
            entry, record_of(grant), version=version, left=grant.expires_in, at=at, shared=entry.keys is None
        )
        try:
            await self.check(entry)
        except RedisUnavailable:
            return  # housekeeping offers it later

    def _drop(self, entry: TokenEntry, generation: CachedToken, version: int, *, told: bool = False) -> None:
        self._rejected.add(generation.token.value)
        entry.mark_invalid(version, until=generation.expires_mono, told=told)
        entry.current = None
        self._observe(TokenInvalidated(entry.name))

    def mark_unshared(self, entry: TokenEntry) -> None:
        """Take it that Redis has lost what it had of a entry: tell it again, token and invalidation."""
        if entry.keys is None:
            return
        if entry.current is not None:
            entry.current.shared = False
        if entry.tombstone_until > self._clock.monotonic():
            entry.tombstone_due_until = entry.tombstone_until

    def due(self, entry: TokenEntry, now: float) -> bool:
        """Return whether a entry must be compared with Redis now."""
        if entry.keys is None:
            return False
        if entry.tombstone_due_until > now or (entry.current is not None and not entry.current.shared):
            return True
        return entry.used and entry.current is not None and now - entry.current.checked >= self._limits.check_seconds

    async def check(self, entry: TokenEntry) -> None:
        """Compare one entry with Redis, and put right what differs.

        Raises:
            RedisUnavailable: Redis is away; what is unshared stays so.
        """
        keys, store = entry.keys, self._store
        if keys is None or store is None:
            return
        if entry.tombstone_due_until > self._clock.monotonic() and not await self._bury(entry, version=entry.dead):
            return  # first the tombstone: beside a newer token it would not be written any more
        generation = entry.current
        if generation is None:
            return
        entry.used = False
        at = Instant(self._clock)
        try:
            found, dead = await store.read(keys)
        except Unreadable:
            generation.shared = True  # others have put theirs there, sealed by a secret of theirs: mine is mine
            generation.checked = at.mono
            return
        generation.checked = at.mono
        if entry.current is not generation:
            return
        if dead >= generation.version:
            self._drop(entry, generation, dead, told=True)  # it is from Redis that I know
            self._manager.refresh_soon(entry)
        elif found is None or found.version < generation.version:
            await self._offer(store, keys, entry, generation)
        elif found.version > generation.version and found.record.value in self._rejected:
            await store.write_tombstone(keys, version=found.version, known=entry.known, left=found.left)
        else:
            if found.version > generation.version:
                self._adopt(entry, found, at)
            generation.shared = True  # Redis has it, or a newer one

    async def _offer(self, store: TokenStore, keys: TokenKeys, entry: TokenEntry, generation: CachedToken) -> None:
        left = generation.left(Instant(self._clock))
        if left <= 0:
            generation.shared = True  # it has ended, and nobody waits for it any more
            return
        answer = await store.commit(
            keys, secrets.token_hex(8), generation.record, version=generation.version, left=left
        )
        if isinstance(answer, Stored):
            generation.shared = True
        elif isinstance(answer, Found):
            self._adopt(entry, answer, Instant(self._clock))
            generation.shared = True  # whichever is used from now on, Redis has a newer one
        elif isinstance(answer, Tombstoned) and entry.current is generation:
            self._drop(entry, generation, answer.version)

    def _adopt(self, entry: TokenEntry, found: Found, at: Instant) -> None:
        if self._asking is not None:
            self._asking.adopt(entry, found, at)

    async def _bury(self, entry: TokenEntry, *, version: int | None) -> bool:
        """Tell Redis that a version is invalid. Return whether Redis could be asked."""
        if self._store is None or entry.keys is None:
            entry.tombstone_due_until = entry.tombstone_until = 0.0
            return True
        left = max(0.0, entry.tombstone_due_until - self._clock.monotonic())
        at = Instant(self._clock)
        sent = entry.dead, entry.tombstone_until
        try:
            answer = await self._store.write_tombstone(entry.keys, version=version, known=entry.known, left=left)
        except RedisUnavailable:
            return False  # housekeeping tells it later, as long as the token would live
        except Unreadable:
            answer = None  # others have put a newer one there, sealed by a secret of theirs
        if sent == (entry.dead, entry.tombstone_until):
            entry.tombstone_due_until = (
                0.0  # else something was declared invalid meanwhile, and Redis may not have heard of it
            )
        if isinstance(answer, Found):
            self._adopt(entry, answer, at)
        elif isinstance(answer, Tombstoned):
            entry.dead = max(entry.dead, answer.version)
        return True
