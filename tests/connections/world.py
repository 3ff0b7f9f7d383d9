"""Several processes of one program, simulated: brokers over one store, one server that detects reuse, and one clock."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tests.connections.memory_store import MemoryStore
from tokenmw import Limits, TokenBroker
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.connections import Connections
from tokenmw.connections.documents import Documents
from tokenmw.observe import Event
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.testing import ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from tokenmw.connections.document import ConnectionDocument
    from tokenmw.connections.documents import Found
    from tokenmw.connections.store import ConnectionKey
    from tokenmw.testing.provider_server.families import Family

__all__ = ["SECRET", "World", "documents_of", "make_world"]

SECRET = "a secret for the tests only"
LIFETIME = 3600.0


class World:
    """Some brokers, which are processes for one another.

    Attributes:
        clock: The time of all.
        server: The server.
        store: The store of all.
        brokers: The brokers.
        events: What they have reported.
    """

    def __init__(self, http: httpx.AsyncClient, server: ProviderServer, clock: ManualClock) -> None:
        self.clock = clock
        self.server = server
        self.store = MemoryStore()
        self.http = http
        self.events: list[Event] = []
        self.brokers: list[TokenBroker] = []

    @property
    def broker(self) -> TokenBroker:
        """The first broker."""
        return self.brokers[0]

    def make_broker(self, **options: Any) -> TokenBroker:
        """Make one more process."""
        config = Connections({"crm": app("crm"), "mail": app("mail")}, store=self.store, subject=lambda _: "user-1")
        options = {"secret_key": SECRET, "limits": Limits(), "connections": config, **options}
        broker = TokenBroker({}, http=self.http, clock=self.clock, observers=[self.events.append], **options)
        self.brokers.append(broker)
        return broker

    async def connect(self, subject: str = "user-1", *, name: str = "crm", user: str = "ada") -> Family:
        """Store a connection whose access token was just granted, and return its family."""
        pair = self.server.users.grant(user, client=name)
        await self.broker.connections.save(
            name,
            subject,
            refresh_token=pair.refresh_token,
            access_token=pair.access_token,
            expires_in=pair.expires_in,
        )
        return pair.family

    async def token(self, broker: int = 0, *, name: str = "crm", subject: str = "user-1") -> str:
        """Return the value of a user's token."""
        return (await self.brokers[broker].connections.token(name, subject)).value

    def key(self, name: str = "crm", subject: str = "user-1") -> ConnectionKey:
        """Return the key of a connection."""
        return documents_of(self.store).key(name, subject)

    async def stored(self, name: str = "crm", subject: str = "user-1") -> Found:
        """Return what the store has of a connection."""
        found = await documents_of(self.store).load(self.key(name, subject))
        assert found is not None
        return found

    async def stored_whatever(self) -> ConnectionDocument:
        """Return the document of a connection, also while the store fails."""
        row = self.store.rows[self.key()]
        return documents_of(self.store).opened(self.key(), row.value, version=row.version)

    async def settle(self) -> None:
        """Let everything run that waits for nothing but its turn."""
        for _ in range(300):
            await asyncio.sleep(0)

    async def while_time_passes(self, work: Awaitable[Any], *, seconds: float = 60.0) -> Any:
        """Let time pass until some work is done, for `seconds` at most."""
        task = asyncio.ensure_future(work)
        for _ in range(int(seconds * 10)):
            await self.clock.elapse(0.1)
            if task.done():
                break
        assert task.done(), "it took too long"
        return await task


def app(client: str) -> OAuthApp:
    """Return an app of the server."""
    return OAuthApp(
        authorize_url="https://idp.example/oauth2/authorize",
        token_url="https://idp.example/oauth2/token",
        revoke_url="https://idp.example/oauth2/revoke",
        client_id=client,
        client_secret="the client's secret",
    )


def documents_of(store: Any, *, secrets: tuple[str, ...] = (SECRET,)) -> Documents:
    """Return a reader and writer of a store's documents, beside those of brokers."""
    names = KeyNames("tokenmw", name_key=SECRET)
    return Documents(store, names=names, sealer=Sealer(secrets), seconds=5.0, log=ThrottledLog(ManualClock()))


@asynccontextmanager
async def make_world(*, brokers: int = 1, **options: Any) -> AsyncGenerator[World]:
    """Open a world."""
    clock = ManualClock()
    server = ProviderServer(clock=clock, token_life=LIFETIME)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
        world = World(http, server, clock)
        for _ in range(brokers):
            await stack.enter_async_context(world.make_broker(**options))
        yield world
