"""Background batches grow while the server is quick, and become smaller and rarer while it is slow."""

from __future__ import annotations

import asyncio

import pytest

from tokenmw.redis.batch_pace import BatchPace


async def quick() -> None:
    """Return at once."""


async def distant() -> None:
    """Take as long as a server on another continent."""
    await asyncio.sleep(0.04)


async def slow() -> None:
    """Take 50 ms longer than that."""
    await asyncio.sleep(0.11)


async def failing() -> None:
    """Fail."""
    raise ConnectionError


async def sizes(pace: BatchPace, send: object, *, batches: int) -> list[int]:
    """Send batches of the size that the pace allows, and return these."""
    found: list[int] = []
    for _ in range(batches):
        found.append(pace.size)
        await pace.run(send, count=pace.size)  # type: ignore[arg-type]
    return found


async def test_quick_batches_grow_up_to_the_largest_size() -> None:
    """Each is twice as large as the one before."""
    pace = BatchPace(least=8, most=100)
    assert [8, 16, 32, 64, 100, 100] == await sizes(pace, quick, batches=6)


async def test_a_small_batch_that_is_quick_shows_nothing() -> None:
    """Only a full one makes the next one larger."""
    pace = BatchPace(least=8, most=100)
    await pace.run(quick, count=7)
    assert pace.size == 8


async def test_slow_batches_shrink_and_are_followed_by_a_pause() -> None:
    """The pause is as long as the time above that of the quickest batch, so that the server has time for others."""
    loop = asyncio.get_running_loop()
    pace = BatchPace(least=8, most=100, first=64)
    await pace.run(quick, count=1)
    began = loop.time()
    assert [64, 32, 16, 8, 8] == await sizes(pace, slow, batches=5)
    assert loop.time() - began > 9 * 0.1


async def test_a_distant_server_is_not_a_slow_one() -> None:
    """Batches grow although each takes nearly as long as one may take that is slow."""
    pace = BatchPace(least=8, most=100)
    assert [8, 16, 32] == await sizes(pace, distant, batches=3)


async def test_the_size_of_a_slow_batch_counts_and_not_what_it_might_have_had() -> None:
    """Half of that is the next size."""
    pace = BatchPace(least=2, most=100, first=100)
    await pace.run(slow, count=10)
    assert pace.size == 5


async def test_a_failure_begins_anew() -> None:
    """The first batch after an outage is a small one."""
    pace = BatchPace(least=8, most=100)
    await sizes(pace, quick, batches=4)
    with pytest.raises(ConnectionError):
        await pace.run(failing, count=100)
    assert pace.size == 8
