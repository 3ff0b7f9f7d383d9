"""Hostile requests at a rate, in one process with a real Redis, beside known callers."""

from __future__ import annotations

import time

from tests.benchmarks.rows import Figure, Plan, Row
from tests.servers import RedisServer
from tests.soak.hostile import Hostile, percentile
from tests.soak.reachable import sample
from tokenmw import Limits

RATE, SECONDS = 10_000.0, 60.0
GOAL = 1.0  # milliseconds


async def run(plan: Plan) -> list[Row]:
    """Send the requests for a minute; in a short run for some seconds."""
    with RedisServer() as server:
        async with Hostile(server.url, limits=Limits()) as callers:
            await callers.send(rate=1_000, seconds=1.0)
            before, processor = sample(0), time.process_time()
            figures = await callers.send(rate=RATE, seconds=SECONDS * plan.size)
            after, processor = sample(0), time.process_time() - processor
    answered = figures.statuses.total() - figures.statuses[0]
    waited, served = (percentile(part, 99) for part in (figures.warm, figures.served))
    return [
        Row(
            "hostile requests answered",
            "a second",
            Figure((figures.rate,)),
            goal=f"{RATE:.0f}",
            met=figures.rate * plan.slack >= 0.98 * RATE,
            notes=(f"{figures.statuses[0]} dropped because 1 000 were in progress",),
        ),
        Row("processor time of a hostile request, with its caller's", "us", Figure((processor / answered * 1e6,))),
        Row(
            "known callers beside them, p99",
            "ms",
            Figure((served,)),
            {"counted from when the request was due": Figure((waited,))},
            goal=f"<= {GOAL}",
            met=served <= plan.slack * GOAL,
            notes=(f"{figures.wrong} of {len(figures.warm) + len(figures.cold)} had another id",),
        ),
        Row("known callers that only Redis knows, p99", "ms", Figure((percentile(figures.cold, 99),))),
        Row("resident memory", "MB more", Figure(((after.memory - before.memory) / 1e6,))),
    ]
