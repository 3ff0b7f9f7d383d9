"""An event for tasks of several event loops: the server may run in another thread than the test."""

from __future__ import annotations

import asyncio
import threading
from typing import final

__all__ = ["Latch"]


@final
class Latch:
    """An event that is set once, from any thread, and waited for in any event loop."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self._set

    def set(self) -> None:
        """Set the event, and wake all waiters."""
        with self._lock:
            self._set = True
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            loop = waiter.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_finish, waiter)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until the event is set, at most `seconds`. Return whether it is set."""
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._set:
                return True
            self._waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return self._set
        finally:
            with self._lock:
                self._waiters.discard(waiter)
        return True


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
