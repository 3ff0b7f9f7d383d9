"""A guard with a client behind it."""

from __future__ import annotations

from typing import Any

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.redis.client import open_client
from tokenmw.redis.guard import Guard

__all__ = ["Guarded"]


class Guarded:
    """Runs commands of a client of its own through a guard of its own.

    Attributes:
        failures: The words that were counted.
    """

    def __init__(self, url: str, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.client: Any = open_client(url, limits=self.limits)[0]
        self.guard = Guard(limits=self.limits, clock=SYSTEM_CLOCK)
        self.failures: list[str] = []
        self.guard.on_failure = self.failures.append

    async def call(self, *words: Any) -> Any:
        """Run one command."""
        return await self.guard.run(lambda: self.client.execute_command(*words))
