"""The stopwatch counts what the loop was given: it sees a wait, and does not see a stall."""

from __future__ import annotations

import asyncio
import time

from tests.looptime import LoopTime


async def test_a_wait_is_counted() -> None:
    """Nearly all of it, and never more; and no more after the end."""
    began = time.monotonic()
    async with LoopTime() as waited:
        while waited.seconds < 0.2:  # noqa: ASYNC110  it is the waiting that is looked at
            await asyncio.sleep(0.01)
    assert waited.seconds <= time.monotonic() - began
    counted = waited.seconds
    await asyncio.sleep(0.02)
    assert counted == waited.seconds


async def test_a_stall_is_not_counted() -> None:
    """Nobody could have been served meanwhile."""
    async with LoopTime() as waited:
        time.sleep(0.3)  # noqa: ASYNC251  a stall is what is wanted
        await asyncio.sleep(0)
    assert waited.seconds < 0.1
