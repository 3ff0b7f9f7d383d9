"""The first request of an API key: round trips to Redis, and time beside one GET."""

from __future__ import annotations

import time

import redis.asyncio

from tests.benchmarks.asgi import gets
from tests.benchmarks.counting import reads
from tests.benchmarks.rows import Figure, Plan, Row, interleaved
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker

KEYS = 500


async def run(plan: Plan) -> list[Row]:
    """Request the ids of new keys, one after another."""
    trips: list[float] = []
    shown = 0
    with RedisServer() as server:
        client = redis.asyncio.Redis.from_url(server.url)
        limits = Limits(new_sessions=1_000_000)
        async with TokenBroker({}, redis=server.url, secret_key="a secret for this run", limits=limits) as broker:
            await broker.session_id("the script is loaded")
            asking = reads(server)
            asking = reads(server) - asking  # the cost of reading the count

            async def sights() -> float:
                nonlocal shown
                before, began = reads(server), time.perf_counter()
                for number in range(shown, shown + KEYS):
                    assert await broker.session_id(f"key-{number}")
                took = time.perf_counter() - began
                trips.append((reads(server) - before - asking) / KEYS)
                shown += KEYS
                assert server.command("DBSIZE") > shown
                return took / KEYS * 1e6

            figures = await interleaved({"ours": sights, "GET": lambda: gets(client, KEYS)}, rounds=plan.rounds)
        await client.aclose()
    # Housekeeping reads its marker meanwhile, every 5 s.
    met = 1.0 <= Figure(tuple(trips)).median < 1.02
    return [
        Row("round trips at first sight of an API key", "", Figure(tuple(trips)), goal="1", met=met),
        Row("first sight of an API key", "us", figures["ours"], {"redis-py GET on loopback": figures["GET"]}),
    ]
