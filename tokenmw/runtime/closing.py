"""Closes a runtime in a task of its own, so that no cancellation of the leaving task leaves connections open.

The leaving task waits for it, so that nothing is open after `async with broker:`.

- An anyio cancel scope cancels every await inside it, so the wait is shielded. Closing has time limits of its own.
- An asyncio cancellation is delivered once, before leaving begins. A further one ends the leaving task, and closing
  continues without it.
- An event loop that stops meanwhile cancels closing as well. Then nothing more is sent, but everything is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from tokenmw.runtime.runtime import Runtime

__all__ = ["close_in_task"]


async def close_in_task(runtime: Runtime, tasks: set[asyncio.Task[None]]) -> None:
    """Close a runtime; `tasks` holds the task meanwhile, because an event loop keeps no strong reference to it."""
    closing = asyncio.get_running_loop().create_task(runtime.close(), name="tokenmw closing")
    tasks.add(closing)
    closing.add_done_callback(tasks.discard)
    with anyio.CancelScope(shield=True):
        await asyncio.wait([closing])
    closing.result()
