"""A deadline does not discard a reply that has already arrived."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.looptime import LoopTime
from tokenmw.redis.deadline import Deadline, connection_made


async def test_deadline_raises_after_its_seconds() -> None:
    """It raises TimeoutError, not before its time, and has called `on_half` once before."""
    halves: list[float] = []
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Deadline(0.1, on_half=lambda: halves.append(time.monotonic() - began)):
            await asyncio.sleep(60)
    assert time.monotonic() - began >= 0.1
    assert 1 == len(halves)
    assert 0.05 <= halves[0]


async def test_block_that_is_quicker_is_not_affected() -> None:
    """No timer stays behind."""
    halves: list[None] = []
    async with Deadline(60.0, on_half=lambda: halves.append(None)) as deadline:
        await asyncio.sleep(0)
    assert deadline._handle is not None
    assert deadline._handle.cancelled()
    assert (False, []) == (deadline.excused, halves)


async def test_exception_inside_of_the_block_is_raised_unchanged() -> None:
    """So is a cancellation from elsewhere."""
    with pytest.raises(ZeroDivisionError):
        async with Deadline(60.0, on_half=lambda: None):
            raise ZeroDivisionError

    async def waits() -> None:
        async with Deadline(60.0, on_half=lambda: None):
            await asyncio.sleep(60)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_reply_that_is_read_in_the_turn_of_the_timer_counts() -> None:
    """After the loop was blocked over half or all of the deadline, the waiting task gets the reply."""
    loop, halves = asyncio.get_running_loop(), list[None]()
    for stall in (0.06, 0.2):
        found: asyncio.Future[str] = loop.create_future()
        async with Deadline(0.1, on_half=lambda: halves.append(None)) as deadline:
            time.sleep(stall)  # noqa: ASYNC251  blocking the loop is what is tested
            # The next turn reads the socket, before timers fire, and the waiting task runs in the turn after it.
            loop.call_soon(loop.call_soon, found.set_result, "here")
            assert await found == "here"
        assert not deadline.excused
    assert [] == halves


async def test_time_of_a_blocked_loop_does_not_count() -> None:
    """The loop is blocked for most of the deadline or for longer; the block then still has its time.

    Each of the sleeps takes a third of the deadline, on a loop that runs.
    """
    for stall in (0.25, 0.7):
        async with Deadline(0.3, on_half=lambda: None):
            time.sleep(stall)  # noqa: ASYNC251  blocking the loop is what is tested
            await asyncio.sleep(0.1)


async def test_time_of_a_blocked_loop_is_added_once() -> None:
    """A loop that is blocked again and again does not make a deadline endless."""

    async def waits() -> None:
        async with Deadline(0.1, on_half=lambda: None):
            while True:
                time.sleep(0.03)  # noqa: ASYNC251  blocking the loop is what is tested
                await asyncio.sleep(0)

    task = asyncio.create_task(waits())
    done, _ = await asyncio.wait([task], timeout=10)
    assert done
    assert isinstance(task.exception(), TimeoutError)


@pytest.mark.parametrize(("stalls", "excused"), [(0, False), (1, False), (2, True)])
async def test_deadline_is_excused_if_the_loop_is_blocked_again(stalls: int, *, excused: bool) -> None:
    """A missing reply then says nothing of the server; after the first time it had its full seconds."""
    deadline = Deadline(0.2, on_half=lambda: None)

    async def waits() -> None:
        async with deadline:
            await asyncio.sleep(0)
            for _ in range(stalls):
                time.sleep(0.5)  # noqa: ASYNC251  blocking the loop is what is tested
                await asyncio.sleep(0.01)  # more turns than there are between a timer and its effect
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await waits()
    # The machine may have stalled by itself.
    assert (deadline.late > 0.2) == deadline.excused
    assert excused <= deadline.excused


async def test_time_starts_again_once_when_a_connection_is_made() -> None:
    """The block gets its whole time from then on, and a second connection does not extend it."""
    halves: list[None] = []
    async with Deadline(0.3, on_half=lambda: halves.append(None), restarts=True):
        await asyncio.sleep(0.1)
        connection_made()
        await asyncio.sleep(0.1)
        assert [] == halves
        await asyncio.sleep(0.15)
    assert [None] == halves
    with pytest.raises(TimeoutError):
        await connect_again_and_again(Deadline(0.1, on_half=lambda: None, restarts=True))


async def test_time_of_a_probe_does_not_start_again() -> None:
    """It includes connecting. Without any deadline, a connection that is made changes nothing."""
    connection_made()
    async with LoopTime() as waited:
        with pytest.raises(TimeoutError):
            await connect_again_and_again(Deadline(0.3, on_half=lambda: None))
    assert waited.seconds < 0.6


async def connect_again_and_again(deadline: Deadline) -> None:
    """Make a connection every 20 ms within a deadline."""
    async with deadline:
        while True:
            await asyncio.sleep(0.02)
            connection_made()


async def test_a_connection_that_is_made_after_the_block_changes_nothing() -> None:
    """The task that makes it may outlast the command that has begun it."""

    async def connects() -> None:
        await asyncio.sleep(0.05)
        connection_made()

    async with Deadline(60.0, on_half=lambda: None, restarts=True) as deadline:
        task = asyncio.create_task(connects())
    await task
    assert deadline._handle is not None
    assert deadline._handle.cancelled()


async def test_time_of_several_blocks_is_added_up_to_the_seconds_in_all() -> None:
    """A loop that gets the processor now and then, as on a machine where a fleet starts, has its time."""
    loop = asyncio.get_running_loop()
    began, found = loop.time(), loop.create_future()
    loop.call_at(began + 0.36, found.set_result, "here")
    async with Deadline(0.2, on_half=lambda: None):
        for start, end in ((0.08, 0.16), (0.25, 0.32)):  # over the half, and over the end of the first extension
            await asyncio.sleep(began + start - loop.time())
            time.sleep(max(0.0, began + end - loop.time()))  # noqa: ASYNC251  blocking the loop is what is tested
        assert await found == "here"
