"""The token side of one process, built as a runtime builds it, on a clock that a test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self, cast

from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.token_store import TokenKeys
from tokenmw.tokens.cache import RejectedTokens, TokenCache
from tokenmw.tokens.manager import TokenManager
from tokenmw.tokens.refresh import Refresher
from tokenmw.tokens.sync import TokenSync

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.observe.events import Event
    from tokenmw.providers.base import Provider
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.testing import ManualClock
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.nested import NestedTokens
    from tokenmw.tokens.store import TokenStore

__all__ = ["Instance", "SkewedClock", "keys_of", "settle"]


class SkewedClock:
    """A machine's clock: time passes as on the shared clock, but its wall clock is `wall` seconds ahead."""

    def __init__(self, clock: ManualClock, *, wall: float = 0.0) -> None:
        self._clock = clock
        self.wall = wall
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep

    def time(self) -> float:
        return self._clock.time() + self.wall


def keys_of(provider: Provider) -> TokenKeys:
    """Return Redis keys that differ by credential, which is all that `MemoryStore` needs."""
    name = repr(provider.credential).encode()
    return TokenKeys(name, name, name, name)


class Instance:
    """The token entries of one process, and what refreshes and compares them."""

    def __init__(
        self, clock: Clock, *, store: TokenStore | None = None, limits: Limits | None = None, single: bool = False
    ) -> None:
        self._limits = limits = limits or Limits()
        self.clock = clock
        self.store = store
        self.events: list[Event] = []
        self.log = ThrottledLog(clock)
        self.rejected = RejectedTokens(limits=limits, clock=clock)

        def keys(provider: Provider) -> TokenKeys | None:
            return keys_of(provider) if store is not None and provider.shareable else None

        self.entries = TokenCache(limits=limits, clock=clock, keys_of=keys, log=self.log)
        self._single = single

    async def __aenter__(self) -> Self:
        refresher = Refresher(
            store=self.store,
            rejected=self.rejected,
            limits=self._limits,
            clock=self.clock,
            log=self.log,
            observe=self.events.append,
            single_process=self._single,
        )
        self.sync = TokenSync(
            refresher=refresher,
            rejected=self.rejected,
            limits=self._limits,
            clock=self.clock,
            observe=self.events.append,
        )
        self.manager = TokenManager(
            cache=self.entries,
            refresher=refresher,
            sync=self.sync,
            http=cast("TokenHTTP", _NestedOnly()),
            limits=self._limits,
            clock=self.clock,
            log=self.log,
        )
        self.stop = self.manager.close
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def entry(self, provider: Provider, name: str = "p") -> TokenEntry:
        """Return the entry of a provider."""
        return self.entries.entry(provider, name)

    async def housekeep(self) -> None:
        """Do one round of housekeeping: compare the entries that are due."""
        now = self.clock.monotonic()
        due = [entry for entry in self.entries if self.sync.is_due(entry, now)]
        try:
            changed = await self.sync.changed(due)
        except RedisUnavailable:
            return
        for entry in changed:
            try:
                if await self.sync.compare(entry):
                    self.manager.refresh_soon(entry)
            except RedisUnavailable:
                continue


class _NestedOnly:
    """A `TokenHTTP` that only returns nested tokens: scripted providers send no requests."""

    def with_nested(self, nested: NestedTokens) -> NestedTokens:
        return nested


async def settle(turns: int = 30) -> None:
    """Run the tasks that are ready."""
    for _ in range(turns):
        await asyncio.sleep(0)
