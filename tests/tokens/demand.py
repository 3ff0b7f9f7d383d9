"""Requests that arrive at every instance while a provider fails and recovers, on a manual clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.tokens.instance import settle
from tests.tokens.providers import ScriptedProvider
from tokenmw.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.tokens.instance import Instance
    from tests.tokens.world import World

__all__ = ["Demand"]

STEP = 0.25
"""Seconds between two requests to one instance."""


class Demand:
    """Sends a request to each instance every `STEP` seconds, and records which were refused.

    Attributes:
        refused: For each refused request the time at which it arrived, the instance, and the error.
        waits: The seconds that each request waited.
    """

    def __init__(self, world: World, *, instances: Sequence[int] = (0, 1, 2)) -> None:
        self._world = world
        self._instances = instances
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused: list[tuple[float, int, RequestError]] = []
        self.waits: list[float] = []

    async def run(self, seconds: float) -> None:
        """Send requests for so long."""
        for _ in range(round(seconds / STEP)):
            for number in self._instances:
                task = asyncio.create_task(self._request(number, self._world.instances[number]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await settle(10)
            await self._world.clock.elapse(STEP)

    async def finish(self) -> None:
        """Wait for the requests that are still waiting."""
        while self._tasks:
            await self._world.clock.elapse(STEP)
            await settle(10)

    def refused_since(self, moment: float) -> list[float]:
        """Return the times after `moment`, in seconds, at which requests were refused."""
        return [at - moment for at, _, _ in self.refused if at >= moment]

    async def _request(self, number: int, instance: Instance) -> None:
        began = self._world.clock.monotonic()
        try:
            await instance.manager.get(instance.entry(ScriptedProvider(self._world.endpoint)))
        except RequestError as error:
            self.refused.append((began, number, error))
        self.waits.append(self._world.clock.monotonic() - began)
