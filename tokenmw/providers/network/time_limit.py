"""A time limit that does not discard what has arrived while this process was stopped or its event loop was blocked."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["time_limit"]

_LATE: Final = 0.1  # seconds after the limit
_MORE: Final = 0.25  # seconds in which what has arrived is read


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncGenerator[None]:
    """Raise `TimeoutError` if the block takes longer than `seconds`.

    If the event loop notices the end late, the block gets a little more time: the answer to a request may be in the
    socket's buffer, and it may have a refresh token that is nowhere else.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    async with asyncio.timeout(None) as timeout:

        def end() -> None:
            now = loop.time()
            timeout.reschedule(now + _MORE if now - ends > _LATE else now)

        handle = loop.call_at(ends, end)
        try:
            yield
        finally:
            handle.cancel()
