"""Two instances that share a server, for tests of the hints that they send to each other."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.brokers import runtime_of
from tests.redis.waiting import until
from tokenmw import TokenBroker
from tokenmw.observe.events import TokenAdopted, TokenInvalidated
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.servers import RedisServer
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["CHANNEL", "SECRET", "Instance", "listeners", "pair"]

CHANNEL = "tokenmw:v1:hints"
SECRET = "a-secret-of-some-length"


class Instance:
    """One broker, with an event for each thing that a hint causes.

    Attributes:
        dropped: Is set when a token was dropped.
        adopted: Is set when a token of another process was adopted.
    """

    def __init__(self, redis: Any, values: list[str], **options: Any) -> None:
        self.dropped = asyncio.Event()
        self.adopted = asyncio.Event()
        provider = StaticToken(lambda: values[-1], credential_id="one")
        self.broker = TokenBroker(
            {"crm": provider, "erp": StaticToken("erp", credential_id="two")},
            redis=redis,
            secret_key=SECRET,
            observers=[self._observe],
            **options,
        )

    @property
    def entry(self) -> TokenEntry:
        """The entry of the provider `crm`."""
        return self.broker._credentials.entry("crm")

    async def value(self) -> str:
        """Return the value of a token, as a request gets it."""
        return (await self.broker.token("crm")).value

    async def invalidate(self) -> None:
        """Invalidate the token of `crm` on all instances."""
        await self.broker.invalidate_provider("crm")

    async def loses_its_token(self, *, within: float) -> None:
        """Wait until the token was dropped, for `within` seconds at most."""
        async with asyncio.timeout(within):
            await self.dropped.wait()
        self.dropped.clear()

    def _observe(self, event: object) -> None:
        if isinstance(event, TokenInvalidated):
            self.dropped.set()
        elif isinstance(event, TokenAdopted):
            self.adopted.set()


def listeners(server: RedisServer) -> int:
    """Return how many connections of a server are subscribed to the hints."""
    count: int = server.command("PUBSUB", "NUMSUB", CHANNEL)[1]
    return count


@asynccontextmanager
async def pair(server: RedisServer, *, redis: Any = None, **options: Any) -> AsyncGenerator[tuple[Instance, Instance]]:
    """Run two instances that listen and have the same token; the second one has another `redis`, if it is given."""
    values = ["first"]
    first = Instance(server.url, values, **options)
    second = Instance(redis or server.url, values, **options)
    async with AsyncExitStack() as stack:
        for one in (first, second):
            await stack.enter_async_context(one.broker)
        await until(lambda: listeners(server) == 2, within=5)
        assert "first" == await first.value() == await second.value()
        # Only hints have an effect from here on, and not the comparison after the connection.
        parts = [runtime_of(one.broker)._hints for one in (first, second)]
        await until(lambda: not any(part is not None and part._tokens._missed for part in parts), within=5)
        values.append("second")
        second.adopted.clear()
        yield first, second
