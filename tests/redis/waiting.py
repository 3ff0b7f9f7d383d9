"""Small steps that tests of a connection are made of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.redis.connection import RedisConnection
    from tokenmw.testing import ManualClock


async def get(connection: RedisConnection, key: str = "a") -> bytes | None:
    """Run one command."""
    value: bytes | None = await connection.execute(lambda client: client.get(key))
    return value


async def fails(connection: RedisConnection) -> str:
    """Run one command that must fail, and return the word why."""
    return await word(get(connection))


async def word(call: Awaitable[object]) -> str:
    """Return why a guarded call cannot be served."""
    with pytest.raises(RedisUnavailable) as caught:
        await call
    return caught.value.word


async def until(condition: Callable[[], bool], *, within: float) -> None:
    """Wait until something is so, for so many seconds at most."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  there is no event for what a server does
            await asyncio.sleep(0.01)


async def passes(clock: ManualClock, until: Callable[[], bool], *, within: float) -> None:
    """Let so many seconds pass at most until something holds; sockets have a little real time for each step."""
    for _ in range(int(within * 4)):
        clock.advance(0.25)
        await asyncio.sleep(0.02)
        if until():
            return
    for _ in range(500):  # the clock stands: what is under way may end, and nothing new begins
        await asyncio.sleep(0.02)
        if until():
            return
    pytest.fail(f"It does not hold after {within} s.")
