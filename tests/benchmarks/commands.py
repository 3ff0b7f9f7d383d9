"""Redis commands of warm requests, and of housekeeping. A manual clock makes the counts exact."""

from __future__ import annotations

import asyncio

import httpx

from tests.benchmarks.asgi import application, requests
from tests.benchmarks.counting import calls, comparisons
from tests.benchmarks.rows import Figure, Plan, Row
from tests.brokers import runtime_of
from tests.servers import RedisServer
from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.providers import ClientCredentials
from tokenmw.testing import ManualClock, ProviderServer

REQUESTS = 100_000
SESSIONS = 50
TTL = 3600.0
QUARTERS = 2
TOKEN_EVERY = 30.0


async def run(plan: Plan) -> list[Row]:
    """Count Redis commands while time stands still, and while sessions and a token are in use."""
    clock, provider = ManualClock(), ProviderServer(token_life=86_400.0)
    crm = ClientCredentials(token_url="https://idp.example/oauth2/token", client_id="crm", client_secret="s")
    async with httpx.AsyncClient(transport=provider.transport()) as http:
        with RedisServer() as server:
            broker = TokenBroker(
                {"crm": crm},
                redis=server.url,
                secret_key="a secret for this run",
                session_ttl=TTL,
                http=http,
                clock=clock,
            )
            async with broker:
                wrapped = TokenMiddleware(application, broker=broker, inject=["crm"])
                await requests(wrapped, 1)
                server.command("CONFIG", "RESETSTAT")
                count = plan.of(REQUESTS)
                await requests(wrapped, count)
                warm = calls(server)
                kept = await background(broker, clock, server)
    touches, compared = kept.get("getex", 0), comparisons(kept)
    seconds = QUARTERS * TTL / 4
    most_touches, most_compared = SESSIONS * QUARTERS, int(seconds / TOKEN_EVERY)
    asked = sum(warm.values())
    return [
        Row(f"Redis commands of {count} warm requests", "", Figure((asked,)), goal="0", met=asked == 0),
        Row(
            f"touches of {SESSIONS} sessions in use for {QUARTERS} quarters of their TTL",
            "",
            Figure((touches,)),
            goal=f"<= {most_touches}",
            met=0 < touches <= most_touches,
        ),
        Row(
            f"comparisons of a token in use for {seconds:.0f} s",
            "",
            Figure((compared,)),
            goal=f"<= {most_compared}",
            met=0 < compared <= most_compared,
        ),
    ]


async def background(broker: TokenBroker, clock: ManualClock, server: RedisServer) -> dict[str, int]:
    """Use sessions and a token in every second of some quarters of the TTL; return the commands of that time."""
    keys = [f"key-{number}".encode() for number in range(SESSIONS)]
    for key in keys:
        await broker.session_id(key)
    for _ in range(30):  # until the uploads after the start are over
        await clock.elapse(1.0)
        await asyncio.sleep(0.02)
    server.command("CONFIG", "RESETSTAT")
    for _ in range(int(QUARTERS * TTL / 4)):
        for key in keys:
            assert runtime_of(broker).sessions.cached(key)
        assert (await broker.token("crm")).value
        await clock.elapse(1.0)
        await asyncio.sleep(0.005)  # Redis answers in real time
    assert broker.status().shared == "up"
    return calls(server)
