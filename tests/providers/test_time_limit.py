"""The time limit of a token request: exact, but not at the cost of what has arrived."""

from __future__ import annotations

import asyncio
import time

import pytest

from tokenmw.providers.network.time_limit import time_limit


async def test_the_limit_ends_a_block() -> None:
    """It raises `TimeoutError` after the seconds, and a block that ends before is not disturbed."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with time_limit(0.05):
            await asyncio.sleep(10)
    assert 0.05 <= time.monotonic() - began < 1
    async with time_limit(0.05):
        pass
    await asyncio.sleep(0.1)


async def test_what_arrived_while_the_loop_was_blocked_is_read() -> None:
    """A blocked event loop notices the end late; what is ready then still completes the block."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    loop.call_later(0.05, arrived.set_result, None)
    loop.call_soon(time.sleep, 0.4)
    async with time_limit(0.1):
        await arrived
        await asyncio.sleep(0)


async def test_a_blocked_loop_ends_a_block_that_waits_on() -> None:
    """Nothing has arrived: the limit is over a quarter of a second after the loop goes on."""
    asyncio.get_running_loop().call_soon(time.sleep, 0.4)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with time_limit(0.1):
            await asyncio.sleep(10)
    assert 0.6 <= time.monotonic() - began < 2


async def test_a_cancelled_block_is_cancelled() -> None:
    """The cancellation of a caller is no `TimeoutError`."""

    async def block() -> None:
        async with time_limit(10):
            await asyncio.sleep(10)

    task = asyncio.ensure_future(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
