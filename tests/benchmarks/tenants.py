"""Many tenants with their own credentials: time per request, memory here and in Redis, comparisons."""

from __future__ import annotations

import asyncio
import gc
import random
import time
import tracemalloc
from functools import partial

import httpx
from starlette.requests import HTTPConnection

from tests.benchmarks.asgi import scope_of
from tests.benchmarks.counting import calls, comparisons, used_memory
from tests.benchmarks.rows import Figure, Plan, Row, best_of, interleaved
from tests.servers import RedisServer
from tokenmw import Limits, Provider, TokenBroker
from tokenmw.asgi.request import tokens_of
from tokenmw.providers import ClientCredentials, StaticToken
from tokenmw.testing import ManualClock, ProviderServer

COUNTS = (100, 10_000)
REQUESTS = 2_000
GOAL = 1.3
SECRET = "a secret for this run"
CHECK = 30.0  # seconds between two comparisons of a token in use with Redis
TIMES = 2  # measured intervals


def tenant_of(connection: HTTPConnection) -> Provider:
    """Make the credential of a tenant, as a program does in each request."""
    return StaticToken(f"token-of-{connection.headers['x-tenant']}")


def shared_tenant(number: int) -> Provider:
    """Return the credential of a tenant whose token is shared through Redis."""
    return StaticToken(lambda: f"token-of-{number:030}", credential_id=f"tenant-{number}", expires_in=86_400.0)


async def run(plan: Plan) -> list[Row]:
    """Measure brokers with few tenants and with many."""
    return [*await by_count(plan), *await in_redis(plan)]


async def by_count(plan: Plan) -> list[Row]:
    """Compare a broker of few tenants with one of many, and measure the memory of the latter."""
    least, most = COUNTS
    async with TokenBroker({"crm": tenant_of}) as small, TokenBroker({"crm": tenant_of}) as big:
        gc.collect()
        tracemalloc.start()
        for number in range(most):
            await resolve(big, number)
        gc.collect()
        here = tracemalloc.get_traced_memory()[0] / most
        tracemalloc.stop()
        for number in range(least):
            await resolve(small, number)
        assert (least, most) == (small.status().tokens, big.status().tokens)
        measured = await interleaved(
            {"least": best_of(partial(requests, small, least)), "most": best_of(partial(requests, big, most))},
            rounds=plan.rounds,
        )
    few, many = measured["least"], measured["most"]
    return [
        Row(
            f"token on demand, any of {most} tenants",
            "us",
            many,
            {f"any of {least}": few},
            goal=f"<= {GOAL} of {least} tenants",
            met=many.median <= plan.slack * GOAL * few.median,
        ),
        Row("local memory of a tenant's token", "bytes", Figure((here,))),
    ]


async def resolve(broker: TokenBroker, tenant: int) -> None:
    """Resolve the token as in a request of a tenant."""
    tokens = tokens_of(broker, scope_of([(b"x-tenant", str(tenant).encode())]))
    token = await tokens.resolve("crm")
    assert token.value == f"token-of-{tenant}"


async def requests(broker: TokenBroker, tenants: int) -> float:
    """Return the microseconds of a request of a random tenant."""
    chosen = [random.randrange(tenants) for _ in range(REQUESTS)]
    began = time.thread_time()
    for tenant in chosen:
        await resolve(broker, tenant)
    return (time.thread_time() - began) / REQUESTS * 1e6


async def in_redis(plan: Plan) -> list[Row]:
    """Measure the memory of tokens in Redis, and the commands while all of them are in use."""
    count, clock = plan.of(COUNTS[-1]), ManualClock()
    limits = Limits(tokens=count, command_seconds=5.0, check_seconds=CHECK)
    with RedisServer() as server:
        one = await of_a_provider(server)
        before = used_memory(server)
        async with TokenBroker(
            {}, redis=server.url, secret_key=SECRET, limits=limits, clock=clock, hints=False
        ) as broker:
            tenants = [shared_tenant(number) for number in range(count)]
            for tenant in tenants:
                await broker.token(tenant)
            all_of_them = (used_memory(server) - before) / count
            for _ in range(10):  # until the uploads after the start are over
                await clock.elapse(1.0)
                await asyncio.sleep(0.05)
            server.command("CONFIG", "RESETSTAT")
            began = time.process_time()
            await in_use(broker, clock, tenants, server=server)
            processor = time.process_time() - began
            compared = comparisons(calls(server))
    seconds = TIMES * CHECK
    return [
        Row("Redis memory of a token, sealed (MEMORY USAGE)", "bytes", Figure((one,))),
        Row(f"the same, of what the server takes for {count}", "bytes", Figure((all_of_them,))),
        Row(
            f"comparisons a second of {count} tokens in use",
            "commands/s",
            Figure((compared / seconds,)),
            goal=f"<= {count / CHECK:.1f}: one for each token and {CHECK:.0f} s",
            met=0 < compared <= TIMES * count,
            notes=(f"{processor / compared * 1e6:.0f} us of our time each, with the requests that use the tokens",),
        ),
    ]


async def in_use(broker: TokenBroker, clock: ManualClock, tenants: list[Provider], *, server: RedisServer) -> None:
    """Use all tokens in every second of `TIMES` intervals."""
    for _ in range(int(TIMES * CHECK)):
        for tenant in tenants:
            assert (await broker.token(tenant)).value
        await clock.elapse(1.0)
        before, compared = -1, 0
        while before < compared:  # Redis answers in real time: wait until no more commands arrive
            await asyncio.sleep(0.05)
            before, compared = compared, comparisons(calls(server))


async def of_a_provider(server: RedisServer) -> float:
    """Return the bytes of a token of 43 characters in Redis."""
    provider = ProviderServer()
    crm = ClientCredentials(token_url="https://idp.example/oauth2/token", client_id="crm", client_secret="s")
    async with (
        httpx.AsyncClient(transport=provider.transport()) as http,
        TokenBroker({"crm": crm}, redis=server.url, secret_key=SECRET, http=http) as broker,
    ):
        await broker.token("crm")
        (name,) = server.command("KEYS", "*:token")
        return float(server.command("MEMORY", "USAGE", name))
