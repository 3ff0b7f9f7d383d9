"""A hundred expiries under steady load: the number of requests that wait for a provider whose tokens overlap."""

from __future__ import annotations

import asyncio
import time

from tests.benchmarks.rows import Figure, Plan, Row
from tests.brokers import runtime_of
from tests.servers import RedisServer
from tokenmw import TokenBroker
from tokenmw.providers import ClientCredentials
from tokenmw.testing import ProviderServer

EXPIRIES = 100
LIFETIME = 1.0


async def run(plan: Plan) -> list[Row]:
    """Request the token every 2 ms until there were a hundred new ones."""
    provider = ProviderServer(token_life=LIFETIME, delay=0.02)
    waited = asked = 0
    values: set[str] = set()
    with provider.running() as base_url, RedisServer() as server:
        crm = ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id="crm", client_secret="s")
        async with TokenBroker({"crm": crm}, redis=server.url, secret_key="a secret for this run") as broker:
            values.add((await broker.token("crm")).value)
            entry, fresh = broker._credentials.entry("crm"), runtime_of(broker).tokens.fresh
            while len(values) <= plan.of(EXPIRIES):
                waited += fresh(entry) is None
                token = await broker.token("crm")
                assert time.time() < token.expires_at
                values.add(token.value)
                asked += 1
                await asyncio.sleep(0.002)
    calls = provider.calls["oauth2"]
    assert calls <= len(values) + 1
    name = f"requests of {asked} that waited, {len(values) - 1} expiries"
    return [
        Row(name, "", Figure((waited,)), goal="0", met=waited == 0),
        Row(
            "fetches for each expiry",
            "",
            Figure(((calls - 1) / (len(values) - 1),)),
            goal="1",
            met=calls <= len(values),
        ),
    ]
