"""20 000 cancelled waiters of one flight: processor time, and real time for which the event loop is blocked."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

from tests.benchmarks.rows import Figure, Plan, Row, interleaved
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.singleflight import SingleFlight

WAITERS = 20_000
GOAL = 300.0  # milliseconds

Taken = tuple[float, float]
"""Milliseconds of processor time and of real time."""


async def run(plan: Plan) -> list[Row]:
    """Measure a flight beside the two usual ways to wait for one task."""
    gc.collect()
    gc.freeze()  # the collector must not scan the objects of other benchmarks
    # The peers take seconds per round, and the short form does not need them.
    peers = {"asyncio.shield": lambda: task(asyncio.shield), "asyncio.wait": lambda: task(wait)}
    contestants = {"tokenmw": flight, **(peers if plan.slack == 1 else {})}
    elapsed: dict[str, list[float]] = {name: [] for name in contestants}

    def processor(name: str, contestant: Callable[[], Awaitable[Taken]]) -> Callable[[], Awaitable[float]]:
        async def measured() -> float:
            worked, took = await contestant()
            elapsed[name].append(took)
            return worked

        return measured

    figures = await interleaved(
        {name: processor(name, contestant) for name, contestant in contestants.items()}, rounds=min(3, plan.rounds)
    )
    ours, real = figures.pop("tokenmw"), {name: Figure(tuple(rounds)) for name, rounds in elapsed.items()}
    goal = f"< {GOAL:.0f} ms of the loop's processor time"
    name = f"{WAITERS} cancelled waiters"
    return [
        Row(name, "ms", ours, figures, goal, ours.median < plan.slack * GOAL),
        Row(f"{name}, real time", "ms", real.pop("tokenmw"), real),
    ]


async def wait(task: asyncio.Task[None]) -> None:
    """Wait for a task without cancelling it."""
    await asyncio.wait({task})


async def flight() -> Taken:
    """Cancel the waiters of a flight."""
    released = asyncio.Event()
    flights: SingleFlight[bool] = SingleFlight(1, clock=SYSTEM_CLOCK)
    one = flights.join("key", released.wait)
    took = await cancel(one.wait)
    assert "key" in flights  # the flight continues without waiters
    released.set()
    assert await one.wait()
    return took


async def task(way: Callable[[asyncio.Task[None]], Awaitable[None]]) -> Taken:
    """Cancel the waiters of a plain task."""
    released = asyncio.Event()

    async def work() -> None:
        await released.wait()

    one = asyncio.create_task(work())
    took = await cancel(lambda: way(one))
    released.set()
    await one
    return took


async def cancel(wait_once: Callable[[], Awaitable[object]]) -> Taken:
    """Start the waiters, cancel them, and return the time until the last one has ended."""

    async def waiter() -> None:
        await wait_once()

    waiters = [asyncio.create_task(waiter()) for _ in range(WAITERS)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    worked, began = time.thread_time(), time.perf_counter()
    for one in waiters:
        one.cancel()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    took = (time.thread_time() - worked) * 1000, (time.perf_counter() - began) * 1000
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    return took
