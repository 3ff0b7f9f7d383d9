"""Server-sent events: the changing part of the page, once a second."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from tokenmw.redaction import Unpicklable
from tokenmw.status_app.page import fragment, summary

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tokenmw.broker import TokenBroker
    from tokenmw.status_app.report import Reporter

__all__ = ["Live"]

_MOST: Final = 20  # listeners
_EVERY: Final = 1.0  # seconds
# Seconds after which a stream ends, and the browser begins another one. Servers wait for open responses before they
# shut the application down, so an endless one would prevent the broker from closing; and `allow` is asked again.
_LONGEST: Final = 10.0


class Live(Unpicklable):
    """Streams reports to a bounded number of listeners.

    Args:
        broker: The broker; a stream ends when it closes.
        reporter: Makes the reports.
    """

    __slots__ = ("_broker", "_listeners", "_reporter")

    def __init__(self, broker: TokenBroker, reporter: Reporter) -> None:
        self._broker = broker
        self._reporter = reporter
        self._listeners = 0

    def respond(self) -> Response:
        """Return a stream, or 503 if there are too many."""
        if self._listeners >= _MOST:
            return PlainTextResponse(
                "Too many listeners.", HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "10"}
            )
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def _stream(self) -> AsyncGenerator[str]:
        if self._listeners >= _MOST:
            return  # others have begun since this one was accepted
        self._listeners += 1
        try:
            loop, runtime, sent = asyncio.get_running_loop(), self._broker._runtime, ""
            until = loop.time() + _LONGEST
            yield "retry: 1000\n\n"
            while runtime is not None and runtime is self._broker._runtime and loop.time() < until:
                event = await self._event()
                yield ": alive\n\n" if event == sent else event
                sent = event
                await asyncio.sleep(_EVERY)
        finally:
            self._listeners -= 1

    async def _event(self) -> str:
        report = await self._reporter.report()
        level, text = summary(report)
        data = json.dumps({"level": level, "summary": text, "html": fragment(report)})
        return f"event: status\ndata: {data}\n\n"
