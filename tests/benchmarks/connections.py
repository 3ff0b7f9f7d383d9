"""Ten thousand connections of users that expire within a minute: the refreshes, and what other requests notice."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import httpx

from tests.benchmarks.rows import Figure, Plan, Row
from tests.brokers import runtime_of
from tests.connections.memory_store import MemoryStore
from tests.connections.world import SECRET, app
from tokenmw import TokenBroker
from tokenmw.connections import Connections
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from tokenmw.connections import UserConnections

CONNECTIONS = 10_000
SECONDS = 60.0
SAMPLE = 0.002


async def run(plan: Plan) -> list[Row]:
    """Ask for each token when it has expired, and for one that has not, every 2 ms."""
    count, seconds = plan.of(CONNECTIONS), SECONDS * plan.size
    server = ProviderServer()
    async with httpx.AsyncClient(transport=server.transport()) as http:
        config = Connections({"crm": app("crm")}, store=MemoryStore(), subject=lambda _: None)
        async with TokenBroker({}, connections=config, secret_key=SECRET, http=http) as broker:
            users = broker.connections
            for subject in ("warm", *map(str, range(count))):
                pair = server.users.grant(subject, client="crm")
                await users.save("crm", subject, refresh_token=pair.refresh_token)
            await users.token("crm", "warm")
            idle = await _p99(users, seconds=seconds / 10)
            exchanges, most = runtime_of(broker).connections.parts.exchanges, 0

            async def expire(subject: str) -> None:
                nonlocal most
                await asyncio.sleep(random.uniform(0.0, seconds))
                await users.token("crm", subject)
                most = max(most, len(exchanges))

            expiring = asyncio.gather(*(expire(str(number)) for number in range(count)))
            loaded = await _p99(users, seconds=seconds)
            await expiring
    refreshes = len(server.users.refreshes) - 1
    limit = 50 * plan.slack  # the server's work is done in the same event loop
    return [
        Row(
            f"refreshes of {count} connections that expire within {seconds:.0f} s",
            "",
            Figure((refreshes,)),
            goal=str(count),
            met=refreshes == count and not server.users.sent_twice,
        ),
        Row("most refreshes at the same time", "", Figure((most,)), goal="≤ 1000", met=most <= 1000),
        Row(
            "p99 of a warm token meanwhile, late wake-ups included",
            "ms",
            Figure((loaded,)),
            goal=f"≤ {limit:g}",
            met=loaded <= limit,
        ),
        Row("the same without refreshes", "ms", Figure((idle,)), goal="", met=True),
    ]


async def _p99(users: UserConnections, *, seconds: float) -> float:
    took: list[float] = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        await asyncio.sleep(SAMPLE)
        await users.token("crm", "warm")
        took.append(time.monotonic() - began - SAMPLE)
    return sorted(took)[int(len(took) * 0.99)] * 1000
