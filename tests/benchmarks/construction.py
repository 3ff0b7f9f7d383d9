"""A provider that a callable makes in each request: what that adds to a warm request with a named provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import httpx
from starlette.requests import HTTPConnection

from tests.benchmarks.asgi import application, requests
from tests.benchmarks.rows import Contestant, Figure, Plan, Row, best_of, interleaved
from tokenmw import Provider, TokenBroker, TokenMiddleware
from tokenmw.providers import ClientCredentials, DingTalk
from tokenmw.testing import ProviderServer

REQUESTS = 3_000
GOAL = 12.0  # microseconds more than a named provider
GOAL_OF_CACHED = 3.0


def crm(_connection: HTTPConnection | None = None) -> Provider:
    """Make a provider, as a program does for the tenant of a request."""
    return ClientCredentials(
        token_url="https://idp.test/oauth2/token", client_id="crm", client_secret="a secret", scope="crm.read"
    )


def dingtalk(_connection: HTTPConnection | None = None) -> Provider:
    """Make a provider of a platform."""
    return DingTalk(app_key="ding1", app_secret="a secret")


async def run(plan: Plan) -> list[Row]:
    """Measure warm requests with named providers and callables, and constructions."""
    count = plan.of(REQUESTS)
    kept = crm()

    def cached(_connection: HTTPConnection) -> Provider:
        return kept

    providers: dict[str, Any] = {"named": crm(), "cached": cached, "per request": crm}
    providers |= {"named DingTalk": dingtalk(), "DingTalk per request": dingtalk}
    async with AsyncExitStack() as stack:
        apps: dict[str, TokenMiddleware] = {}
        for name, provider in providers.items():
            server = ProviderServer(token_life=86_400)
            client = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
            broker = await stack.enter_async_context(TokenBroker({"crm": provider}, http=client))
            apps[name] = TokenMiddleware(application, broker=broker, inject=["crm"])
            await requests(apps[name], 10)
        contestants: dict[str, Contestant] = {
            name: best_of(partial(requests, app, count)) for name, app in apps.items()
        }
        contestants |= {make.__name__: best_of(partial(constructions, make, count)) for make in (crm, dingtalk)}
        figures = await interleaved(contestants, rounds=plan.rounds)
    added = {
        name: difference(figures[name], figures["named DingTalk" if "DingTalk" in name else "named"])
        for name in ("per request", "DingTalk per request", "cached")
    }
    slowest = max(added["per request"].median, added["DingTalk per request"].median)
    return [
        Row(
            "provider made per request, over a named one",
            "us",
            added["per request"],
            {"DingTalk": added["DingTalk per request"]},
            f"<= {GOAL:.0f} us",
            slowest <= plan.slack * GOAL,
        ),
        Row(
            "callable that returns a kept provider, over a named one",
            "us",
            added["cached"],
            goal=f"<= {GOAL_OF_CACHED:.0f} us",
            met=added["cached"].median <= plan.slack * GOAL_OF_CACHED,
        ),
        Row("provider made again", "us", figures["crm"], {"DingTalk": figures["dingtalk"]}),
    ]


def difference(one: Figure, other: Figure) -> Figure:
    """Return one figure minus another one, round by round."""
    return Figure(tuple(more - less for more, less in zip(one.rounds, other.rounds, strict=True)))


async def constructions(make: Callable[[], Provider], count: int) -> float:
    """Return the microseconds of one construction of a provider that is equal to a living one."""
    living = make()
    began = time.thread_time()
    for _ in range(count):
        assert make() is not living
    return (time.thread_time() - began) / count * 1e6
