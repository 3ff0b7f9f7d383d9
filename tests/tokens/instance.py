"""One instance of a service, as far as tokens go: what a broker puts together, on a clock that a test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.token_store import TokenKeys
from tokenmw.tokens.cache import RejectedTokens, TokenCache
from tokenmw.tokens.manager import TokenManager
from tokenmw.tokens.nested import NestedTokens
from tokenmw.tokens.refresh import Refresher, Renewal, TokenStore
from tokenmw.tokens.sync import TokenSync

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.observe.events import Event
    from tokenmw.providers.base import Provider
    from tokenmw.testing import ManualClock
    from tokenmw.tokens.entry import TokenEntry

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
        self.rejected = RejectedTokens(limits=limits, clock=clock)
        self.manager = TokenManager(limits=limits, clock=clock)

        def keys(provider: Provider) -> TokenKeys | None:
            return keys_of(provider) if store is not None and provider.shareable else None

        self.entries = TokenCache(limits=limits, clock=clock, keys_of=keys, flying=self.manager.entry_of)
        self.coherence = TokenSync(
            manager=self.manager, rejected=self.rejected, limits=limits, clock=clock, observe=self.events.append
        )
        # Scripted providers need no more of it.
        http: Any = NestedTokens(self.manager, entries=self.entries, coherence=self.coherence)
        self._asking = Refresher(
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

    def entry(self, provider: Provider, name: str = "p") -> TokenEntry:
        """Return the entry of a provider."""
        return self.entries.entry(provider, name)

    async def housekeep(self) -> None:
        """Do what housekeeping does in one round."""
        now = self.clock.monotonic()
        for entry in [entry for entry in self.entries if self.coherence.due(entry, now)]:
            try:
                await self.coherence.check(entry)
            except RedisUnavailable:
                continue


async def settle(turns: int = 30) -> None:
    """Let the tasks that can go on do so."""
    for _ in range(turns):
        await asyncio.sleep(0)
