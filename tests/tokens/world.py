"""Several instances over one Redis, on a manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.tokens.instance import Instance, SkewedClock, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.providers import Endpoint, ScriptedProvider
from tokenmw.testing import ManualClock
from tokenmw.values import Token


class World:
    """Three instances over one Redis and one token endpoint."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.endpoint = Endpoint(clock)
        self.redis = MemoryRedis(clock)
        self.instances: list[Instance] = []
        self.stores: list[MemoryStore] = []

    async def get(self, number: int, **options: object) -> Token:
        """Return an instance's token; time passes while the request waits. `options` are the provider's."""
        instance = self.instances[number]
        task = asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(self.endpoint, **options))))  # type: ignore[arg-type]
        for _ in range(200):
            await settle(5)
            if task.done():
                break
            await self.clock.elapse(0.1)
        return await task


@asynccontextmanager
async def make_world() -> AsyncGenerator[World]:
    """Start three instances; the wall clocks of two of them are wrong by ten minutes."""
    world = World(ManualClock())
    async with AsyncExitStack() as stack:
        for wall in (0.0, 600.0, -600.0):
            store = MemoryStore(world.redis)
            world.stores.append(store)
            instance = Instance(SkewedClock(world.clock, wall=wall), store=store)
            world.instances.append(await stack.enter_async_context(instance))
        yield world
