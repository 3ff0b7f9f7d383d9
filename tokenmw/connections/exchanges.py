"""Exchanges: tasks that belong to the broker, and outlive the requests and fetches that wait for them.

A request that is cancelled between the server's answer and the store would lose the new refresh token, and with it the
user's account. So what spends a token runs in a task of its own, and closing the broker waits for it.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from tokenmw.errors import TokenUnavailable, copy_of
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["Exchange", "Exchanges"]


class Exchange(Unpicklable):
    """One running exchange.

    Attributes:
        spending: Whether it may have announced or sent a token to spend. Closing waits for it, and cancels the others.
    """

    __slots__ = ("spending", "task")

    def __init__(self, work: Callable[[Exchange], Coroutine[Any, Any, Any]]) -> None:
        self.spending = False
        # An empty context: the context variables of the first request are not for the others.
        self.task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(
            work(self), context=contextvars.Context(), name="tokenmw exchange"
        )

    async def result(self) -> Any:
        """Wait for the result. A cancelled caller only stops waiting."""
        await asyncio.wait([self.task])
        if self.task.cancelled():
            raise TokenUnavailable("the broker was closed")
        error = self.task.exception()
        if error is None:
            return self.task.result()
        raise copy_of(error, error.__traceback__) if isinstance(error, Exception) else error


class Exchanges(Unpicklable):
    """The exchanges of one event loop, at most one for each connection.

    Args:
        limit: How many may run at the same time.
    """

    __slots__ = ("_by_key", "_closed", "_limit", "_running")

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._closed = False
        self._by_key: dict[str, Exchange] = {}
        self._running: set[Exchange] = set()

    @property
    def closing(self) -> bool:
        """Whether no refresh token is to be sent any more: the time until everything ends has begun."""
        return self._closed

    def __len__(self) -> int:
        return len(self._running)

    async def join(self, key: str, work: Callable[[Exchange], Coroutine[Any, Any, Any]]) -> Any:
        """Wait for the exchange of a connection; start one if none is running. A cancelled caller only stops waiting.

        Raises:
            TokenUnavailable: Too many are running, or the broker is closed.
            Exception: A copy of what the exchange raised.
        """
        exchange = self._by_key.get(key)
        if exchange is None:
            exchange = self._start(work)
            self._by_key[key] = exchange
            exchange.task.add_done_callback(lambda _task: self._by_key.pop(key, None))
        return await exchange.result()

    async def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run something that must not be cancelled with its caller, such as storing a pair; wait for it.

        Raises:
            TokenUnavailable: Too many are running, or the broker is closed.
            Exception: A copy of what it raised.
        """

        async def spend(exchange: Exchange) -> Any:
            exchange.spending = True
            return await work()

        exchange = self._start(spend)
        exchange.spending = True
        return await exchange.result()

    def _start(self, work: Callable[[Exchange], Coroutine[Any, Any, Any]]) -> Exchange:
        if self._closed:
            raise TokenUnavailable("the broker is closed")
        if len(self._running) >= self._limit:
            raise TokenUnavailable(f"more than Limits(flights={self._limit}) tokens of users are being refreshed")
        exchange = Exchange(work)
        self._running.add(exchange)
        exchange.task.add_done_callback(lambda task: self._finish(exchange, task))
        return exchange

    def _finish(self, exchange: Exchange, task: asyncio.Task[Any]) -> None:
        self._running.discard(exchange)
        if not task.cancelled():
            task.exception()  # retrieved, so that the event loop never reports it

    async def close(self, seconds: float) -> None:
        """Cancel what spends nothing, and wait up to `seconds` for the rest. No other can be started."""
        self._closed = True
        for exchange in self._running:
            if not exchange.spending:
                exchange.task.cancel()
        for limit in (seconds, 1.0):
            tasks = {exchange.task for exchange in self._running}
            if not tasks:
                return
            _, late = await asyncio.wait(tasks, timeout=limit)
            for task in late:
                task.cancel()
