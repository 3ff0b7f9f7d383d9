"""One instance of a service, as far as tokens go: what a broker puts together, on a clock that a test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.shared.guard import SharedUnavailable
from tokenmw.shared.token_store import TokenKeys
from tokenmw.tokens.asking import Asking
from tokenmw.tokens.coherence import Coherence
from tokenmw.tokens.lease import Renewal, TokenStore
from tokenmw.tokens.manager import TokenManager
from tokenmw.tokens.others import OtherTokens
from tokenmw.tokens.rejected import RejectedValues
from tokenmw.tokens.slots import Slots

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.observe.events import Event
    from tokenmw.providers.base import Provider
    from tokenmw.testing import ManualClock
    from tokenmw.tokens.slot import Slot

__all__ = ["Instance", "SkewedClock", "keys_of", "settle"]


class SkewedClock:
    """A machine's own clock: the time that passes is everybody's, the time of day may be wrong."""

    def __init__(self, clock: ManualClock, *, wall: float = 0.0) -> None:
        self._clock = clock
        self.wall = wall
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep

    def time(self) -> float:
        return self._clock.time() + self.wall


def keys_of(provider: Provider) -> TokenKeys:
    """Return keys that tell credentials apart; `MemoryStore` needs no more of them."""
    name = repr(provider.credential).encode()
    return TokenKeys(name, name, name, name)


class Instance:
    """The token side of one process."""

    def __init__(
        self, clock: Clock, *, store: TokenStore | None = None, limits: Limits | None = None, single: bool = False
    ) -> None:
        limits = limits or Limits()
        self.clock = clock
        self.store = store
        self.events: list[Event] = []
        self.log = ThrottledLog(clock)
        self.rejected = RejectedValues(limits=limits, clock=clock)
        self.manager = TokenManager(limits=limits, clock=clock)

        def keys(provider: Provider) -> TokenKeys | None:
            return keys_of(provider) if store is not None and provider.shareable else None

        self.slots = Slots(limits=limits, clock=clock, keys_of=keys, flying=self.manager.slot_of)
        self.coherence = Coherence(
            manager=self.manager, rejected=self.rejected, limits=limits, clock=clock, observe=self.events.append
        )
        # Scripted providers need no more of it.
        http: Any = OtherTokens(self.manager, slots=self.slots, coherence=self.coherence)
        self._asking = Asking(
            http=http,
            store=store,
            rejected=self.rejected,
            limits=limits,
            clock=clock,
            log=self.log,
            observe=self.events.append,
        )
        self._renewal = Renewal(self._asking, store=store, limits=limits, single_process=single)

    async def __aenter__(self) -> Self:
        self.stop = self.manager.start(self._renewal, look=self._asking.look)
        self.coherence.start(self._asking, store=self.store)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def slot(self, provider: Provider, name: str = "p") -> Slot:
        """Return the slot of a provider."""
        return self.slots.slot(provider, name)

    async def housekeep(self) -> None:
        """Do what housekeeping does in one round."""
        now = self.clock.monotonic()
        for slot in [slot for slot in self.slots if self.coherence.due(slot, now)]:
            try:
                await self.coherence.check(slot)
            except SharedUnavailable:
                continue


async def settle(turns: int = 30) -> None:
    """Let the tasks that can go on do so."""
    for _ in range(turns):
        await asyncio.sleep(0)
