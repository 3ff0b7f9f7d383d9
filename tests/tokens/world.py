"""Several instances over one Redis, on a manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.tokens.instance import Instance, SkewedClock, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.scripted import Scripted, Stage
from tokenmw.testing import ManualClock
from tokenmw.values import Token


class World:
    """Several instances, one Redis, one provider."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.stage = Stage(clock)
        self.redis = MemoryRedis(clock)
        self.instances: list[Instance] = []
        self.stores: list[MemoryStore] = []

    async def get(self, number: int, **options: object) -> Token:
        one = self.instances[number]
        task = asyncio.create_task(one.manager.get(one.entry(Scripted(self.stage, **options))))  # type: ignore[arg-type]
        for _ in range(200):
            await settle(5)
            if task.done():
                break
            await self.clock.elapse(0.1)
        return await task


@asynccontextmanager
async def a_world() -> AsyncGenerator[World]:
    """Start three instances, two of them with a wrong wall clock."""
    world = World(ManualClock())
    async with AsyncExitStack() as stack:
        for wall in (0.0, 600.0, -600.0):
            store = MemoryStore(world.redis)
            world.stores.append(store)
            instance = Instance(SkewedClock(world.clock, wall=wall), store=store)
            world.instances.append(await stack.enter_async_context(instance))
        yield world
