"""Steps of tests: commands that fail, and waiting until a condition holds."""

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
    value: bytes | None = await connection.execute(lambda client: client.get(key), key=key.encode())
    return value


async def fails(connection: RedisConnection) -> str:
    """Run one command that must fail, and return the reason."""
    return await reason_of(get(connection))


async def reason_of(call: Awaitable[object]) -> str:
    """Return the reason of a call that must raise `RedisUnavailable`."""
    with pytest.raises(RedisUnavailable) as caught:
        await call
    return caught.value.reason


async def until(condition: Callable[[], bool], *, within: float) -> None:
    """Wait until a condition holds, for `within` seconds at most."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  there is no event for what a server does
            await asyncio.sleep(0.01)


async def passes(clock: ManualClock, until: Callable[[], bool], *, within: float) -> None:
    """Advance a clock by `within` seconds at most until a condition holds; each step has a little real time for I/O."""
    for _ in range(int(within * 4)):
        clock.advance(0.25)
        await asyncio.sleep(0.02)
        if until():
            return
    for _ in range(500):  # the clock stands still: what is under way may finish, and nothing new begins
        await asyncio.sleep(0.02)
        if until():
            return
    pytest.fail(f"The condition does not hold after {within} s.")
