"""Keeping local copies and Redis in step: invalidation by comparison, the look at tokens in use, offers.

What was fetched or declared invalid without Redis is unshared, and is offered until Redis has it. Versions decide:
an older token never replaces a newer one, a token declared invalid never comes back.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from tokenmw.frames import without_locals
from tokenmw.observe.events import TokenInvalidated
from tokenmw.shared.guard import SharedUnavailable
from tokenmw.shared.sealing import Unreadable
from tokenmw.shared.token_store import Dead, Found, Stored
from tokenmw.tokens.asking import record_of
from tokenmw.tokens.failures import pause
from tokenmw.tokens.slot import Moment, Slot
from tokenmw.values import MAX_LIFE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.shared.token_store import TokenKeys
    from tokenmw.tokens.asking import Asking
    from tokenmw.tokens.lease import TokenStore
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.rejected import RejectedValues
    from tokenmw.tokens.slot import Generation
    from tokenmw.values import Grant, Token

__all__ = ["Coherence"]

_TOO_YOUNG: Final = 5.0  # seconds; an API that refuses so young a token has perhaps not heard of it yet
_FORGIVEN: Final = 600.0  # seconds without a report after which the next one is the first again


class Coherence:
    """Compares slots with Redis. The slots outlive an event loop; `start` stands at its beginning."""

    __slots__ = ("_asking", "_clock", "_limits", "_manager", "_observe", "_rejected", "_store")

    def __init__(
        self,
        *,
        manager: TokenManager,
        rejected: RejectedValues,
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
        self._asking: Asking | None = None

    def start(self, asking: Asking, *, store: TokenStore | None) -> None:
        """Begin to compare, in the running event loop."""
        self._asking = asking
        self._store = store

    async def invalidate(self, token: Token) -> bool:
        """Drop a token that an API refused, if it is still the current one. Return whether it was dropped.

        A report about an older token, about one fetched less than 5 s ago, or about one that the provider has just
        repeated, causes nothing; further reports count after pauses that grow like those after failures.
        """
        origin = token._origin
        if not isinstance(origin, Slot):
            return False
        slot, now = origin, Moment(self._clock)
        current = slot.now
        if current is None or current.token.value != token.value:
            return False
        if current.age(now) < _TOO_YOUNG or now.mono < slot.deaf_until:
            return False
        if now.mono > slot.deaf_until + _FORGIVEN:
            slot.rejections = 0
        slot.rejections += 1
        slot.deaf_until = now.mono + pause(slot.rejections)
        self._drop(slot, current, current.version)
        await self._bury(slot, version=slot.dead)
        return True

    @without_locals
    async def invalidate_whatever(self, slot: Slot) -> None:
        """Drop whatever token a provider has or is asked for, here and in Redis, and let it be asked again at once."""
        now = Moment(self._clock)
        if slot.now is not None:
            self._drop(slot, slot.now, slot.now.version)
        # And what is being asked for at this moment, here or elsewhere: nobody knows yet how long it will live. By the
        # clock alone it would be missed: what is asked for here may be ahead of it.
        slot.condemn(max(int(now.wall * 1_000_000), slot.asked), until=now.mono + MAX_LIFE)
        slot.failure = None
        slot.deaf_until = now.mono
        await self._bury(slot, version=None)

    async def hand_in(self, slot: Slot, grant: Grant) -> None:
        """Give a slot a token that came by itself, above every version that Redis or this process has."""
        if self._asking is None:
            return
        known = 0
        if self._store is not None and slot.keys is not None:
            try:
                found, known = await self._store.read(slot.keys)
            except (SharedUnavailable, Unreadable):
                found = None  # by its clock, this process is as likely right as any other
            known = max(known, 0 if found is None else found.version)
        at = Moment(self._clock)
        version = max(int(at.wall * 1_000_000), slot.known + 1, known + 1)
        self._asking.install(
            slot, record_of(grant), version=version, left=grant.expires_in, at=at, shared=slot.keys is None
        )
        try:
            await self.check(slot)
        except SharedUnavailable:
            return  # housekeeping offers it later

    def _drop(self, slot: Slot, generation: Generation, version: int, *, told: bool = False) -> None:
        self._rejected.add(generation.token.value)
        slot.condemn(version, until=generation.end_mono, told=told)
        slot.now = None
        self._observe(TokenInvalidated(slot.name))

    def doubt(self, slot: Slot) -> None:
        """Take it that Redis has lost what it had of a slot: tell it again, token and invalidation."""
        if slot.keys is None:
            return
        if slot.now is not None:
            slot.now.shared = False
        if slot.dead_end > self._clock.monotonic():
            slot.dead_until = slot.dead_end

    def due(self, slot: Slot, now: float) -> bool:
        """Return whether a slot must be compared with Redis now."""
        if slot.keys is None:
            return False
        if slot.dead_until > now or (slot.now is not None and not slot.now.shared):
            return True
        return slot.used and slot.now is not None and now - slot.now.checked >= self._limits.check_seconds

    async def check(self, slot: Slot) -> None:
        """Compare one slot with Redis, and put right what differs.

        Raises:
            SharedUnavailable: Redis is away; what is unshared stays so.
        """
        keys, store = slot.keys, self._store
        if keys is None or store is None:
            return
        if slot.dead_until > self._clock.monotonic() and not await self._bury(slot, version=slot.dead):
            return  # first the tombstone: beside a newer token it would not be written any more
        generation = slot.now
        if generation is None:
            return
        slot.used = False
        at = Moment(self._clock)
        try:
            found, dead = await store.read(keys)
        except Unreadable:
            generation.shared = True  # others have put theirs there, sealed by a secret of theirs: mine is mine
            generation.checked = at.mono
            return
        generation.checked = at.mono
        if slot.now is not generation:
            return
        if dead >= generation.version:
            self._drop(slot, generation, dead, told=True)  # it is from Redis that I know
            self._manager.refresh_soon(slot)
        elif found is None or found.version < generation.version:
            await self._offer(store, keys, slot, generation)
        elif found.version > generation.version and found.record.value in self._rejected:
            await store.bury(keys, version=found.version, known=slot.known, left=found.left)
        else:
            if found.version > generation.version:
                self._adopt(slot, found, at)
            generation.shared = True  # Redis has it, or a newer one

    async def _offer(self, store: TokenStore, keys: TokenKeys, slot: Slot, generation: Generation) -> None:
        left = generation.left(Moment(self._clock))
        if left <= 0:
            generation.shared = True  # it has ended, and nobody waits for it any more
            return
        answer = await store.commit(
            keys, secrets.token_hex(8), generation.record, version=generation.version, left=left
        )
        if isinstance(answer, Stored):
            generation.shared = True
        elif isinstance(answer, Found):
            self._adopt(slot, answer, Moment(self._clock))
            generation.shared = True  # whichever is used from now on, Redis has a newer one
        elif isinstance(answer, Dead) and slot.now is generation:
            self._drop(slot, generation, answer.version)

    def _adopt(self, slot: Slot, found: Found, at: Moment) -> None:
        if self._asking is not None:
            self._asking.adopt(slot, found, at)

    async def _bury(self, slot: Slot, *, version: int | None) -> bool:
        """Tell Redis that a version is invalid. Return whether Redis could be asked."""
        if self._store is None or slot.keys is None:
            slot.dead_until = slot.dead_end = 0.0
            return True
        left = max(0.0, slot.dead_until - self._clock.monotonic())
        at = Moment(self._clock)
        sent = slot.dead, slot.dead_end
        try:
            answer = await self._store.bury(slot.keys, version=version, known=slot.known, left=left)
        except SharedUnavailable:
            return False  # housekeeping tells it later, as long as the token would live
        except Unreadable:
            answer = None  # others have put a newer one there, sealed by a secret of theirs
        if sent == (slot.dead, slot.dead_end):
            slot.dead_until = 0.0  # else something was declared invalid meanwhile, and Redis may not have heard of it
        if isinstance(answer, Found):
            self._adopt(slot, answer, at)
        elif isinstance(answer, Dead):
            slot.dead = max(slot.dead, answer.version)
        return True
