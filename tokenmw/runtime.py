"""What a broker has in one event loop."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.housekeeping import Healing, Housekeeping
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.sessions.sync import SessionTouches

__all__ = ["Runtime"]


class Runtime:
    """The parts of a broker that live and die with one event loop, in one process.

    Attributes:
        shared: The way to Redis, or None.
        touches: Session touches that wait, or None.
    """

    __slots__ = ("_closers", "_healing", "_loop", "_pid", "_seconds", "_task", "shared", "touches")

    def __init__(
        self,
        *,
        shared: RedisConnection | None,
        touches: SessionTouches | None,
        healing: Healing | None,
        housekeeping: Housekeeping,
        closers: tuple[Callable[[], Awaitable[None]], ...],
        closing_seconds: float,
    ) -> None:
        self.shared = shared
        self.touches = touches
        self._healing = healing
        self._seconds = closing_seconds
        self._closers = closers
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._task = self._loop.create_task(housekeeping.run(), name="tokenmw housekeeping")

    async def connect(self) -> None:
        """Make the first connection to Redis, and see which data it has, so that their loss is noticed from now on.

        A Redis that is away is logged, and does not keep the program from starting.
        """
        if self.shared is not None and await self.shared.open() and self._healing is not None:
            await self._healing.look()

    @property
    def here(self) -> bool:
        """Whether this is still the process and the event loop it was made in."""
        return self._pid == os.getpid() and self._loop is asyncio.get_running_loop()

    @property
    def elsewhere(self) -> bool:
        """Whether the event loop it was made in is running, in another thread of this process."""
        return self._pid == os.getpid() and self._loop.is_running() and not self.here

    @property
    def unshared_sessions(self) -> int:
        """How many session ids Redis has yet to be told."""
        touches, healing = self.touches, self._healing
        return 0 if touches is None or healing is None else touches.unshared + len(healing.offers)

    async def close(self) -> None:
        """End everything, in the order in which the parts lean on each other. A Redis that is slow holds nobody up."""
        # One that raises does not keep the others from closing; nor does a cancellation, as of a loop that ends.
        async with AsyncExitStack() as stack:
            for close in reversed(self._closers):
                stack.push_async_callback(close)
            self._task.cancel()
            await asyncio.wait([self._task])
            if self.touches is not None and self.shared is not None and self.shared.usable:
                with suppress(RedisUnavailable, TimeoutError):  # sessions lose a twentieth of their time at most
                    async with asyncio.timeout(self._seconds):
                        await self.touches.send()
