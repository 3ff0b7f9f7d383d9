"""The stopwatch counts the time in which a task waits, and not the time in which the event loop is blocked."""

from __future__ import annotations

import asyncio
import time

from tests.looptime import LoopTime


async def test_a_wait_is_counted() -> None:
    """It counts at most the time that has passed, and nothing after the block."""
    began = time.monotonic()
    async with LoopTime() as waited:
        while waited.seconds < 0.2:  # noqa: ASYNC110  the wait itself is under test
            await asyncio.sleep(0.01)
    assert waited.seconds <= time.monotonic() - began
    counted = waited.seconds
    await asyncio.sleep(0.02)
    assert counted == waited.seconds


async def test_a_blocked_event_loop_is_not_counted() -> None:
    """Time in which no task could run is not counted."""
    async with LoopTime() as waited:
        time.sleep(0.3)  # noqa: ASYNC251  it blocks the loop on purpose
        await asyncio.sleep(0)
    assert waited.seconds < 0.1
