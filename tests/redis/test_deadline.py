"""A deadline cuts off no reply that is here already."""

from __future__ import annotations

import asyncio
import time

import pytest

from tokenmw.redis.deadline import Deadline


async def test_it_ends_what_takes_longer() -> None:
    """With the error of the standard library, not before its time, and after it has said that half of it is over."""
    halves: list[float] = []
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Deadline(0.1, on_half=lambda: halves.append(time.monotonic() - began)):
            await asyncio.sleep(60)
    assert time.monotonic() - began >= 0.1
    assert 1 == len(halves)
    assert 0.05 <= halves[0]


async def test_it_leaves_alone_what_is_quicker() -> None:
    """And leaves no timer behind."""
    halves: list[None] = []
    async with Deadline(60.0, on_half=lambda: halves.append(None)) as deadline:
        await asyncio.sleep(0)
    assert deadline._handle is not None
    assert deadline._handle.cancelled()
    assert (False, []) == (deadline.excused, halves)


async def test_an_error_of_what_is_inside_stays_what_it_is() -> None:
    """Also a cancellation from elsewhere."""
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


async def test_what_is_found_in_the_turn_of_the_timer_counts() -> None:
    """The loop stood still over the half, or over the whole: who waits gets it, and there was no trouble."""
    loop, halves = asyncio.get_running_loop(), list[None]()
    for stall in (0.06, 0.2):
        found: asyncio.Future[str] = loop.create_future()
        async with Deadline(0.1, on_half=lambda: halves.append(None)) as deadline:
            time.sleep(stall)  # noqa: ASYNC251  the fault of the program that this is about
            # What a socket has is handed on in the next turn, before timers, and who waits runs in the one after it.
            loop.call_soon(loop.call_soon, found.set_result, "here")
            assert await found == "here"
        assert not deadline.excused
    assert [] == halves


async def test_what_could_not_go_on_gets_its_time_back() -> None:
    """The loop stood still for most of the deadline or for more than all of it; then what is inside still has its time.

    Each of the sleeps takes a third of the deadline, on a loop that runs.
    """
    for stall in (0.25, 0.7):
        async with Deadline(0.3, on_half=lambda: None):
            time.sleep(stall)  # noqa: ASYNC251  the fault of the program that this is about
            await asyncio.sleep(0.1)


async def test_it_gets_it_back_once() -> None:
    """A loop that stands still again and again does not make a deadline endless."""

    async def waits() -> None:
        async with Deadline(0.1, on_half=lambda: None):
            while True:
                time.sleep(0.03)  # noqa: ASYNC251  the fault of the program that this is about
                await asyncio.sleep(0)

    task = asyncio.create_task(waits())
    done, _ = await asyncio.wait([task], timeout=10)
    assert done
    assert isinstance(task.exception(), TimeoutError)


@pytest.mark.parametrize(("stalls", "excused"), [(0, False), (1, False), (2, True)])
async def test_a_loop_that_stands_still_longer_than_it_again_is_an_excuse(stalls: int, *, excused: bool) -> None:
    """A reply that does not come then says nothing of the server; after one stall it had its time."""
    deadline = Deadline(0.2, on_half=lambda: None)

    async def waits() -> None:
        async with deadline:
            await asyncio.sleep(0)
            for _ in range(stalls):
                time.sleep(0.5)  # noqa: ASYNC251  the fault of the program that this is about
                await asyncio.sleep(0.01)  # more turns than lie between a timer and its effect
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await waits()
    # The machine may have had a stall of its own.
    assert (deadline.late > 0.2) == deadline.excused
    assert excused <= deadline.excused
