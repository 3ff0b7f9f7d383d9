"""A stopwatch for event loops, which does not count time in which the loop is blocked or its process does not run.

Tests use it to bound how long something waits. A clock would also count delays by other processes on the machine and by
garbage collection. This counts short sleeps in the same event loop: each sleep that returns is time in which the loop
could have run any ready task. It never counts more time than has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

TICK: Final = 0.004  # seconds


class LoopTime:
    """The seconds in which the event loop was running since the block was entered.

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
        """The seconds counted so far."""
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
