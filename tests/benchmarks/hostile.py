"""Hostile requests at a rate, to two processes with a real Redis, beside known callers; the HTTP server is left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.benchmarks.rows import Figure, Plan, Row
from tests.processes import Workers, receive, send
from tests.servers import RedisServer
from tests.soak.hostile import Figures, Hostile, percentile
from tokenmw import Limits

RATE, SECONDS = 10_000.0, 60.0
PROCESSES = 2
GOAL = 1.0  # milliseconds


async def run(plan: Plan) -> list[Row]:
    """Send the requests for a minute; in a short run for some seconds."""
    seconds = SECONDS * plan.size
    with RedisServer() as server:
        arguments = {"redis": server.url, "rate": RATE / PROCESSES, "seconds": seconds}
        target = "tests.benchmarks.hostile:measured"
        async with Workers(target, processes=PROCESSES, arguments=arguments, within=60 + 2 * seconds) as workers:
            before = await workers.receive()
            await workers.send("go")
            figures = joined(await workers.results())
    served = percentile(figures.served, 99)
    arrived = percentile(figures.warm, 99)
    return [
        Row(
            f"hostile requests answered by {PROCESSES} processes",
            "a second",
            Figure((figures.rate,)),
            goal=f"{RATE:.0f}",
            met=figures.rate * plan.slack >= 0.99 * RATE,
            notes=(f"{figures.statuses[0]} dropped because 1 000 were in progress", figures.machine),
        ),
        Row(
            "processor time of a hostile request, with its caller's",
            "us",
            Figure((figures.processor / figures.answered * 1e6,)),
        ),
        Row(
            "known callers beside them, from arrival to response, p99",
            "ms",
            Figure((arrived,)),
            {"once the event loop has come to it": Figure((served,))},
            goal=f"<= {GOAL}",
            met=arrived <= plan.slack * GOAL,
            notes=(
                f"p50 {percentile(figures.warm, 50):.2f} ms; {_over(figures):.1%} over {GOAL} ms",
                f"{figures.wrong} of {figures.known} had another id",
            ),
        ),
        Row(
            "known callers that authenticate accepts, from their arrival, p99",
            "ms",
            Figure((percentile(figures.checked, 99),)),
        ),
        Row(
            "known callers that only Redis knows, from their arrival, p99",
            "ms",
            Figure((percentile(figures.cold, 99),)),
        ),
        Row(
            "resident memory of both processes",
            "MB more",
            Figure(((figures.memory[-1] - sum(before)) / 1e6,)),
            notes=(f"{figures.grown / 1e6:+.1f} MB of it in the last third",),
        ),
    ]


async def measured(*, redis: str, rate: float, seconds: float) -> dict[str, Any]:
    """Send a part of the requests, in a process of its own, and return what was measured."""
    async with Hostile(redis, limits=Limits()) as callers:
        warm_up = await callers.send(rate=1_000, seconds=1.0)
        send(warm_up.memory[-1])
        receive()
        return vars(await callers.send(rate=rate, seconds=seconds))


def joined(parts: list[dict[str, Any]]) -> Figures:
    """Return the figures of processes that ran at the same time as those of one."""
    statuses: Counter[int] = Counter()
    for part in parts:
        statuses.update({int(status): number for status, number in part["statuses"].items()})  # JSON has text only
    times = {name: [time for part in parts for time in part[name]] for name in ("warm", "served", "checked", "cold")}
    return Figures(
        seconds=max(part["seconds"] for part in parts),
        statuses=statuses,
        wrong=sum(part["wrong"] for part in parts),
        memory=[sum(at_once) for at_once in zip(*(part["memory"] for part in parts), strict=False)],
        processor=sum(part["processor"] for part in parts),
        idle=sum(part["idle"] for part in parts) / len(parts),
        stolen=sum(part["stolen"] for part in parts) / len(parts),
        **times,
    )


def _over(figures: Figures) -> float:
    return sum(seconds * 1e3 > GOAL for seconds in figures.warm) / max(1, len(figures.warm))
