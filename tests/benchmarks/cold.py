"""A cold key: 8 processes with 1 000 callers each, one Redis and one provider, beside as many bare futures."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.benchmarks.rows import Figure, Plan, Row
from tests.faults.token_workers import broker_of
from tests.processes import Workers, receive, send
from tests.servers import RedisServer
from tokenmw.testing import ProviderServer

PROCESSES, CALLERS = 8, 1000
DELAY = 0.5
GOAL = 1.1 * DELAY + 0.1


async def run(plan: Plan) -> list[Row]:
    """Measure how long the last caller waits, and count the fetches."""
    ours: list[dict[str, Any]] = []
    bare: list[dict[str, Any]] = []
    fetches: list[float] = []
    limits = {"command_seconds": 2.0}
    with RedisServer() as redis:
        for _ in range(min(3, plan.rounds)):
            redis.command("FLUSHALL")
            provider = ProviderServer(delay=DELAY)
            with provider.running() as base_url:
                ours.append(await crowd("ask", redis=redis.url, base_url=base_url, limits=limits))
            fetches.append(provider.calls["oauth2"])
            bare.append(await crowd("wait_bare", seconds=DELAY))
    assert all(len(round_["values"]) == 1 for round_ in ours)
    crowd_of = f"{PROCESSES} processes x {CALLERS} callers"
    last, floor = (Figure(tuple(round_["seconds"] for round_ in rounds)) for rounds in (ours, bare))
    worked, least = (Figure(tuple(round_["processor"] for round_ in rounds)) for rounds in (ours, bare))
    woken = f"as many bare futures, woken after {DELAY} s"
    goal = f"<= {GOAL:.2f} s with a provider that takes {DELAY} s"
    over = last.median - floor.median
    return [
        Row(f"fetches of a cold key, {crowd_of}", "", Figure(tuple(fetches)), goal="1", met=set(fetches) == {1}),
        Row(
            f"the last of {crowd_of}",
            "s",
            last,
            {woken: floor},
            goal=goal,
            met=last.median <= plan.slack * GOAL,
            notes=(f"{over:.2f} s over the bare futures, which {'meet' if floor.median <= GOAL else 'miss'} the goal",),
        ),
        Row(f"processor time of {crowd_of}", "s", worked, {woken: least}),
    ]


async def crowd(target: str, **arguments: Any) -> dict[str, Any]:
    """Start all processes at the same time; return the longest wait of a caller, and the total processor time."""
    arguments["callers"] = CALLERS
    async with Workers(f"{__name__}:{target}", processes=PROCESSES, arguments=arguments) as workers:
        await workers.receive()
        await workers.send("go")
        results = await workers.results()
    return {
        "seconds": max(result["seconds"] for result in results),
        "processor": sum(result["processor"] for result in results),
        "values": {value for result in results for value in result["values"]},
    }


async def ask(*, callers: int, **options: Any) -> dict[str, Any]:
    """Request a cold token in many tasks at the same time."""
    async with broker_of(**options) as broker:

        async def one() -> str:
            return (await broker.token("crm")).value

        return await all_of(one, callers)


async def wait_bare(*, callers: int, seconds: float) -> dict[str, Any]:
    """Wait for as many futures, which get their results when the provider would have answered."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[str]] = []

    def wake() -> None:
        for future in waiting:
            future.set_result("")

    async def one() -> str:
        if not waiting:
            loop.call_later(seconds, wake)
        waiting.append(loop.create_future())
        return await waiting[-1]

    return await all_of(one, callers)


async def all_of(one: Any, callers: int) -> dict[str, Any]:
    """Start the callers on a signal; return the longest wait, from the first step of the caller."""
    waits: list[float] = []
    values: set[str] = set()

    async def caller() -> None:
        began = time.monotonic()
        values.add(await one())
        waits.append(time.monotonic() - began)

    send("ready")
    receive()
    worked = time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return {"seconds": max(waits), "processor": time.process_time() - worked, "values": sorted(values)}
