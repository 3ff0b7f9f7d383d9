"""The credentials of one request: what the user's callable chose, asked once however many want to know."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from tokenmw.errors import TokenUnavailable

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from tokenmw.options import ProviderOfRequest

__all__ = ["Choice"]


class Choice:
    """One call of a user's callable, sync or async, for as many as wait for it in one request.

    Attributes:
        callable: What was called.
        given_up: Whether everybody who waited was cancelled; what was under way is cancelled then, too.
    """

    __slots__ = ("_result", "_running", "_waiting", "callable", "given_up")

    def __init__(self, choose: ProviderOfRequest, connection: HTTPConnection) -> None:
        self.callable = choose
        self.given_up = False
        self._waiting = 0
        self._running: asyncio.Future[Any] | None = None
        self._result: Any = None
        try:
            result = choose(connection)
            # A task of its own, in the request's context: who asked first may be cancelled while others still wait.
            if inspect.isawaitable(result):
                self._running = asyncio.ensure_future(result)
            else:
                self._result = result
        except Exception as error:  # noqa: BLE001  raised to everybody who asks
            self._result = error

    async def provider(self) -> Any:
        """Return what was chosen; whether it is a provider is checked by the caller.

        Raises:
            TokenUnavailable: The callable's own code was cancelled.
            Exception: Whatever the callable raised.
        """
        if self._running is not None:
            await self._wait(self._running)
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    async def _wait(self, running: asyncio.Future[Any]) -> None:
        self._waiting += 1
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            if self._waiting == 1:
                self.given_up = running.cancel()
                running.add_done_callback(_look_at)
            raise
        finally:
            self._waiting -= 1
        if running.cancelled():
            self._result = TokenUnavailable("The choice of this request's credentials was cancelled.")
        else:
            self._result = running.exception() or running.result()
        self._running = None


def _look_at(ended: asyncio.Future[Any]) -> None:
    if not ended.cancelled():
        ended.exception()  # so that the loop never reports it as not retrieved
