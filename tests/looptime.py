"""A stopwatch that stands still while its event loop does: for tests that say how long something waits.

A machine with other work holds a process up for as long as it likes, and a collection of garbage holds a loop up. Both
would be counted by a clock as waiting that nobody did. So this counts short sleeps of the same loop instead: each that
ends was time in which the loop would have run whoever was ready. What it counts is never more than what has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

TICK: Final = 0.004  # seconds


class LoopTime:
    """Seconds that the running event loop was given since the block was entered.

    Example:
        >>> async with LoopTime() as waited:
        ...     await something
        >>> assert waited.seconds < 0.3
    """

    def __init__(self) -> None:
        self._ticks = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """What has been counted so far."""
        return self._ticks * TICK

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._ticks += 1
