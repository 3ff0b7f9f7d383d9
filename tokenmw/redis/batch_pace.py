"""The size of background batches, adapted to how fast the server executes them.

A server executes what one connection has sent before it serves the next one, and after a loss of data all instances
upload at the same time. So a request's command waits for about as long as the batches of all instances take together,
which is what each of them measures as the duration of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["BatchPace"]

T = TypeVar("T")

_TARGET: Final = 0.05  # seconds: a third of the default deadline of a request's command


class BatchPace(Unpicklable):
    """Runs one batch after the other: larger ones while they are quick, smaller ones with pauses while they are slow.

    A batch is slow if it takes 50 ms longer than the quickest one.

    Args:
        least: The smallest size. Each batch has costs of its own, so smaller ones would keep a slow server busier.
        most: The largest size.
        first: The size of the first batch, and at most of one after a failure; None: the smallest.

    Attributes:
        size: How many keys the next batch may have.
    """

    __slots__ = ("_first", "_least", "_most", "_not_before", "_quickest", "size")

    def __init__(self, *, least: int, most: int, first: int | None = None) -> None:
        self._first = self.size = first or least
        self._least = least
        self._most = most
        self._not_before = 0.0
        self._quickest = _TARGET

    async def run(self, send: Callable[[], Awaitable[T]], *, count: int) -> T:
        """Send a batch of `count` keys, after the pause that the last one has caused. Raises what `send` raises."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began < self._not_before:
            await asyncio.sleep(self._not_before - began)
            began = loop.time()
        try:
            result = await send()
        except BaseException:
            self.size = min(self._first, self.size)
            self._quickest = _TARGET  # the next server may be another one, with a longer round trip
            raise
        now = loop.time()
        self._adapt(now - began, count=count, now=now)
        return result

    def _adapt(self, took: float, *, count: int, now: float) -> None:
        # The quickest batch shows how far the server is: however small one to a distant server is, it takes that long.
        self._quickest = min(self._quickest, took)
        slow = took - self._quickest
        if slow > _TARGET:
            self.size = max(self._least, min(self.size, count) // 2)
            # Once the smallest batches of all instances are too much together, only pauses make them fewer.
            self._not_before = now + slow
        elif slow < _TARGET / 2 and count >= self.size:
            self.size = min(self._most, self.size * 2)
