"""Hostile requests at a rate, in one process with a real Redis, beside known callers; the HTTP server is left out."""

from __future__ import annotations

from tests.benchmarks.rows import Figure, Plan, Row
from tests.servers import RedisServer
from tests.soak.hostile import Figures, Hostile, percentile
from tests.soak.reachable import sample
from tokenmw import Limits

RATE, SECONDS = 10_000.0, 60.0
GOAL = 1.0  # milliseconds


async def run(plan: Plan) -> list[Row]:
    """Send the requests for a minute; in a short run for some seconds."""
    with RedisServer() as server:
        async with Hostile(server.url, limits=Limits()) as callers:
            await callers.send(rate=1_000, seconds=1.0)
            before = sample(0)
            figures = await callers.send(rate=RATE, seconds=SECONDS * plan.size)
            after = sample(0)
    waited = percentile(figures.warm, 99)
    return [
        Row(
            "hostile requests answered",
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
            Figure((waited,)),
            {"once the event loop has come to it": Figure((percentile(figures.served, 99),))},
            goal=f"<= {GOAL}",
            met=waited <= plan.slack * GOAL,
            notes=(
                f"p50 {percentile(figures.warm, 50):.2f}; over {GOAL} ms: {_over(figures):.1%} of {len(figures.warm)}",
                f"{figures.wrong} of {figures.known} had another id",
            ),
        ),
        Row("known callers that authenticate accepts, p99", "ms", Figure((percentile(figures.checked, 99),))),
        Row("known callers that only Redis knows, p99", "ms", Figure((percentile(figures.cold, 99),))),
        Row(
            "resident memory",
            "MB more",
            Figure(((after.memory - before.memory) / 1e6,)),
            notes=(f"{figures.grown / 1e6:+.1f} MB of it in the last third",),
        ),
    ]


def _over(figures: Figures) -> float:
    return sum(seconds * 1e3 > GOAL for seconds in figures.warm) / max(1, len(figures.warm))
