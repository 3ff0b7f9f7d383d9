"""Redis frozen under load: total waiting until the circuit opens, and the time of requests after that."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.benchmarks.rows import Figure, Plan, Row
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.observe.throttle import LOGGER

SECONDS = 3.0
DEADLINE = Limits().command_seconds
DEADLINES = 3
WAITED = 0.02  # seconds; a faster request did not wait for Redis


async def run(plan: Plan) -> list[Row]:
    """Freeze Redis during requests with known and new keys; measure bare deadlines under the same load."""
    LOGGER.setLevel(logging.CRITICAL)  # log lines are not part of what is timed
    counted: list[float] = []
    waited: list[float] = []
    bare: list[float] = []
    slowest: list[float] = []
    for _ in range(min(3, plan.rounds)):
        waits, later = await outage()
        counted.append(len(waits))
        waited.append(sum(waits))
        slowest.append(statistics.quantiles(later, n=100)[98] * 1000)
        bare.append(sum(took for took in await load(deadline_of_one, seconds=1.0) if took > WAITED))
    count, wait, alone, after = (Figure(tuple(rounds)) for rounds in (counted, waited, bare, slowest))
    # A timer never fires early, and each of these waits ends with one: the bare deadlines are the minimum.
    most = max(DEADLINES * DEADLINE, alone.median) + (plan.slack - 1) * DEADLINE
    return [
        Row(
            "requests that wait for a frozen Redis",
            "",
            count,
            goal=f"<= {DEADLINES}",
            met=count.median <= DEADLINES,
        ),
        Row(
            "what they wait in all",
            "s",
            wait,
            {f"{DEADLINES} x asyncio.timeout({DEADLINE:g})": alone},
            goal=f"<= {DEADLINES} deadlines, as bare ones take them, and 1 ms of work at each",
            met=wait.median <= most + DEADLINES * 0.001,
        ),
        Row("p99 of requests after that", "ms", after, goal="< 1 ms", met=after.median < plan.slack),
    ]


async def outage() -> tuple[list[float], list[float]]:
    """Return the seconds of each request that waited, and of all requests after the last of them."""
    with RedisServer() as server:
        async with TokenBroker({}, redis=server.url, secret_key="a secret for this run") as broker:
            await asyncio.gather(*(broker.session_id(f"warm-{number}") for number in range(20)))
            runtime = broker._runtime
            assert runtime is not None
            assert runtime.session_sync is not None
            # First sights share a connection, and a command that has timed out drops it: the next one needs another.
            store = runtime.session_sync.store
            await asyncio.gather(*(store.touch([store.key(b"warm-0")]) for _ in range(10)))

            async def ask(number: int) -> None:
                assert await broker.session_id(f"warm-{number % 20}" if number % 2 else f"new-{number}")

            server.freeze()
            try:
                times = await load(ask, seconds=SECONDS)
                assert broker.status().shared == "down"
            finally:
                server.thaw()
    waits = [number for number, took in enumerate(times) if took > WAITED]
    assert waits, "no request waited for the frozen server"
    later = times[waits[-1] + 1 :]
    assert len(later) > 100
    return [times[number] for number in waits], later


async def deadline_of_one(number: int) -> None:
    """Wait for a bare deadline, if this is one of the first requests."""
    if number < DEADLINES:
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                await asyncio.get_running_loop().create_future()


async def load(ask: Callable[[int], Awaitable[None]], *, seconds: float) -> list[float]:
    """Send requests one after another, and return the seconds of each."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await ask(len(times))
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.001)
    return times
