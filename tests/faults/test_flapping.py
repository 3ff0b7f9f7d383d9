"""A server whose latency is around the deadline of commands: the circuit does not open and close each second."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.proxies import Proxy
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.observe.events import SharedStateChanged
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.keys import KeyNames

if TYPE_CHECKING:
    from tests.servers import RedisServer
    from tokenmw.observe.events import Event

SECONDS = 20.0
LATENCY = (0.03, 0.11)  # seconds in each direction; commands have 0.15 s for both


async def _run_commands(connection: RedisConnection) -> None:
    while True:
        with suppress(RedisUnavailable):
            await connection.execute(lambda client: client.get("a"), key=b"a")
        await asyncio.sleep(0.02)


async def _vary_latency(proxy: Proxy) -> None:
    chance = random.Random(3)
    while True:
        proxy.latency = chance.uniform(*LATENCY)
        await asyncio.sleep(0.4)


async def outages(server: RedisServer, seconds: float) -> int:
    """Return how often the circuit opened in some seconds of varying latency."""
    events: list[Event] = []
    async with Proxy(server.port) as proxy:
        connection = RedisConnection(
            proxy.url,
            names=KeyNames("test", name_key="a-secret-of-some-length"),
            limits=Limits(),
            clock=SYSTEM_CLOCK,
            log=ThrottledLog(SYSTEM_CLOCK),
            observe=events.append,
            on_recovered=lambda: None,
        )
        assert await connection.open()
        tasks = [asyncio.create_task(_run_commands(connection)) for _ in range(4)]
        tasks.append(asyncio.create_task(_vary_latency(proxy)))
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await connection.close()
    return events.count(SharedStateChanged(up=False, error="timeout"))


@pytest.mark.campaign  # it takes 20 s
async def test_varying_latency_opens_the_circuit_a_few_times(redis_server: RedisServer) -> None:
    """It opened 9 or 10 times in 20 s; now each outage soon after another one begins with a longer delay."""
    assert 1 <= await outages(redis_server, SECONDS) <= 6
