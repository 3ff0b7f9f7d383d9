"""valkey-glide as the client beside redis-py: a bare GET, and what a broker does with either, in the same run."""

from __future__ import annotations

import asyncio
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import redis.asyncio

from tests.benchmarks.rows import Figure, Plan, Row, interleaved
from tests.redis.glides import configuration, glide
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEYS = 1_000
AT_ONCE = 64
SECRET = "a secret for this run"
LIMITS = Limits(new_sessions=1_000_000, command_seconds=2.0)


async def run(plan: Plan) -> list[Row]:
    """Measure GET, and first sights of API keys, one after another and 64 at once."""
    if find_spec("glide") is None:
        figure = Figure((0.0,))
        return [Row("valkey-glide", "", figure, notes=("valkey-glide is not installed",))]
    with RedisServer() as server:
        bare = redis.asyncio.Redis.from_url(server.url, protocol=3)
        client = await glide().GlideClient.create(configuration(server.port))
        await bare.set("a", b"x" * 100)
        async with (
            TokenBroker({}, redis=client, secret_key=SECRET, limits=LIMITS, namespace="glide") as ours,
            TokenBroker({}, redis=server.url, secret_key=SECRET, limits=LIMITS, namespace="redis-py") as other,
        ):
            rows = [
                await _row(f"GET, {at_once} at once", client.get, bare.get, at_once, plan, same_key=True)
                for at_once in (1, AT_ONCE)
            ]
            rows += [
                await _row(
                    f"first sight of an API key, {at_once} at once", ours.session_id, other.session_id, at_once, plan
                )
                for at_once in (1, AT_ONCE)
            ]
        await client.close()
        await bare.aclose()
    return rows


async def _row(
    name: str,
    ours: Callable[[Any], Awaitable[Any]],
    other: Callable[[Any], Awaitable[Any]],
    at_once: int,
    plan: Plan,
    *,
    same_key: bool = False,
) -> Row:
    numbers = iter(range(10**9))

    def contestant(call: Callable[[Any], Awaitable[Any]]) -> Callable[[], Awaitable[float]]:
        async def one(count: int) -> None:
            for _ in range(count):
                assert await call("a" if same_key else f"{name} {next(numbers)}")

        async def measured() -> float:
            count = plan.of(KEYS) // at_once or 1
            began = time.perf_counter()
            await asyncio.gather(*(one(count) for _ in range(at_once)))
            return (time.perf_counter() - began) / (count * at_once) * 1e6

        return measured

    figures = await interleaved({"glide": contestant(ours), "redis-py": contestant(other)}, rounds=plan.rounds)
    return Row(f"valkey-glide: {name}", "us", figures["glide"], {"redis-py": figures["redis-py"]})
