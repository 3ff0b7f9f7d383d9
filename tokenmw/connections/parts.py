"""The parts of connections that belong to one event loop, built whole."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tokenmw.connections.documents import Documents
from tokenmw.connections.ended import EndedConnections
from tokenmw.connections.exchanges import Exchanges
from tokenmw.connections.pair_storage import PairStorage
from tokenmw.connections.refresh import ConnectionRefresher
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock
    from tokenmw.connections.connections import Connections
    from tokenmw.connections.data import ConnectionData
    from tokenmw.connections.pair_storage import Kept
    from tokenmw.connections.user_token import UserToken
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.sealing import Sealer
    from tokenmw.redis.used_flows import UsedFlows
    from tokenmw.tokens.cache import RejectedTokens, TokenCache
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.sync import TokenSync

__all__ = ["ConnectionParts", "OpenConnections"]


class ConnectionParts(Unpicklable):
    """What refreshes connections in one event loop.

    Attributes:
        documents: The store.
        storage: Stores new pairs.
        ended: Deletes the rows of connections that their users have ended.
        exchanges: The tasks that outlive their callers.
        refresher: Refreshes connections.
        observe: Gets events.
        sealer: Seals documents, and the cookies of flows.
        clock: Time.
        log: Where failures are logged.
        used: The flows that were completed in any process; None without Redis.
    """

    __slots__ = (
        "_closing_seconds",
        "_connections",
        "clock",
        "documents",
        "ended",
        "exchanges",
        "log",
        "observe",
        "refresher",
        "sealer",
        "storage",
        "used",
    )

    def __init__(
        self,
        connections: Connections,
        *,
        data: ConnectionData,
        kept: Kept | None,
        used: UsedFlows | None,
        names: KeyNames,
        sealer: Sealer,
        rejected: RejectedTokens,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        observe: Callable[[Event], None],
        writer: str,
    ) -> None:
        self._connections = connections
        # What was sent is answered within the first, and stored within the second.
        self._closing_seconds = limits.exchange_seconds + limits.store_seconds
        self.sealer = sealer
        self.used = used
        self.clock = clock
        self.log = log
        self.observe = observe
        self.documents = Documents(connections.store, names=names, sealer=sealer, seconds=limits.store_seconds, log=log)
        self.storage = PairStorage(documents=self.documents, kept=kept, data=data, clock=clock, log=log)
        self.ended = EndedConnections(self.documents, data=data, seconds=limits.claim_seconds, clock=clock)
        self.exchanges = Exchanges(limit=limits.flights)
        self.refresher = ConnectionRefresher(
            documents=self.documents,
            storage=self.storage,
            ended=self.ended,
            exchanges=self.exchanges,
            data=data,
            rejected=rejected,
            limits=limits,
            clock=clock,
            log=log,
            observe=observe,
            writer=writer,
        )

    async def offer(self, http: TokenHTTP) -> None:
        """Offer to the store what it has not taken yet, and revoke and delete what belongs to ended connections."""
        for key, document in await self.storage.offer():
            provider = self._connections.provider(key.app, key.subject)
            await self.exchanges.run(partial(self.refresher.revoke, provider, http, document))
        await self.ended.delete()

    async def close(self) -> None:
        """Wait for running exchanges, for `exchange_seconds` and `store_seconds` at most, then close the store."""
        await self.exchanges.close(self._closing_seconds)
        await self.storage.offer()
        await self.ended.delete(early=True)
        await self.storage.close()
        await self.documents.store.aclose()


class OpenConnections(Unpicklable):
    """A running event loop's parts, with the tokens that come from connections."""

    __slots__ = ("_cache", "parts", "sync", "tokens")

    def __init__(self, parts: ConnectionParts, *, cache: TokenCache, tokens: TokenManager, sync: TokenSync) -> None:
        self._cache = cache
        self.parts = parts
        self.tokens = tokens
        self.sync = sync

    def entry(self, provider: UserToken) -> TokenEntry:
        """Return the entry of a user's token."""
        return self._cache.entry(provider, provider.app_name)

    async def offer_unsaved(self) -> None:
        """Offer to the store what it has not taken yet. For housekeeping."""
        await self.parts.offer(self.tokens.http)

    async def close(self) -> None:
        """Wait for running exchanges, then close the store."""
        await self.parts.close()
