"""The warm path: a session id and an injected token, both cached, compared with a bare ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import redis.asyncio

from tests.benchmarks.asgi import LookingUp, SettingTwo, SettingTwoAndWatching, application, gets, requests
from tests.benchmarks.peers import caches, token_clients
from tests.benchmarks.rows import Figure, Plan, Row, best_of, interleaved
from tests.servers import RedisServer
from tokenmw import TokenAuth, TokenBroker, TokenMiddleware
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from starlette.types import ASGIApp

REQUESTS = 5_000
GOAL = 5.0  # microseconds
GOAL_OF_AUTH = 4.0  # microseconds
AUTH, LEAST_AUTH = "auth object", "an auth object that sets a header"
GET, CASHEWS, AIOCACHE = "redis-py GET on loopback", "cashews memory hit", "aiocache memory hit"
OF = {GET: 1 / 15, CASHEWS: 0.2, AIOCACHE: 0.4}
FLOORS = {
    "a middleware that sets two keys": SettingTwo,
    "one that watches send, too": SettingTwoAndWatching,
    "one that looks up, too": LookingUp,
}
# The cost of the middleware in calls of an empty Python function: a ratio that is the same on other machines.
CALLS, OF_CALLS = "200 empty Python calls", 1.0


async def run(plan: Plan) -> list[Row]:
    """Measure what the middleware adds to a request, and what a token costs without it."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        client = redis.asyncio.Redis.from_url(server.url)
        stack.push_async_callback(client.aclose)
        cache_hits, no_caches = await stack.enter_async_context(caches())
        token_hits, no_clients = await stack.enter_async_context(token_clients())
        brokers = {
            "tokenmw": TokenBroker({"crm": StaticToken("t")}, redis=server.url, secret_key="a secret for this run"),
            "with an observer": TokenBroker(
                {"crm": StaticToken("t")},
                redis=server.url,
                secret_key="a secret for this run",
                observers=[lambda _event: None],
            ),
            "not sealed": TokenBroker(
                {"crm": StaticToken("t")}, redis=server.url, name_key="a secret for the tests only"
            ),
            "without Redis": TokenBroker({"crm": StaticToken("t")}),
        }
        for broker in brokers.values():
            await stack.enter_async_context(broker)
        count = plan.of(REQUESTS)
        ours_of = {
            name: TokenMiddleware(application, broker=broker, inject=["crm"]) for name, broker in brokers.items()
        }
        contestants: dict[str, Any] = {name: added(app, count) for name, app in ours_of.items()}
        contestants |= {name: added(floor(application), count) for name, floor in FLOORS.items()}
        contestants[GET] = best_of(lambda: gets(client, plan.of(500)))
        contestants[CALLS] = best_of(lambda: calls(plan.of(500)))
        for name, hits in {**cache_hits, **token_hits}.items():
            contestants[name] = best_of(partial(hits, count))
        auths: dict[str, TokenAuth | SettingAHeader] = {
            AUTH: brokers["tokenmw"].auth("crm"),
            LEAST_AUTH: SettingAHeader(),
        }
        contestants |= {name: best_of(partial(signed, auth, count)) for name, auth in auths.items()}
        contestants["broker.token"] = best_of(lambda: tokens(brokers["tokenmw"], count))
        figures = await interleaved(contestants, rounds=plan.rounds)
    ours, least = figures["tokenmw"], figures[list(FLOORS)[-1]]
    variants = {name: figures[name] for name in list(brokers)[1:]}
    compared = {name: figures[name] for name in (*FLOORS, GET, CALLS, *cache_hits)}
    # A slow or busy machine makes the calls slower too, so the short form compares with them.
    met = ours.median <= GOAL if plan.slack == 1 else within_calls(ours, figures[CALLS], plan.slack)
    return [
        Row("warm request", "us", ours, compared, f"<= {GOAL:.0f} us", met, no_caches),
        *(beside(name, figures[name], ours, least, plan) for name in OF if name in figures),
        Row("warm request, other brokers", "us", ours, variants),
        Row(
            "valid token",
            "us",
            figures["broker.token"],
            {name: figures[name] for name in token_hits},
            notes=no_clients,
        ),
        Row(
            "auth object, token known",
            "us",
            figures[AUTH],
            {name: figures[name] for name in (LEAST_AUTH, *(name for name in token_hits if "msal" not in name))},
            goal=f"<= {GOAL_OF_AUTH:.0f} us",
            met=figures[AUTH].median <= GOAL_OF_AUTH if plan.slack == 1 else None,
            notes=("the peers only put the token on a request; tokenmw also examines the answer",),
        ),
    ]


def within_calls(ours: Figure, empty: Figure, slack: float) -> bool:
    """Return whether the middleware costs no more empty calls than allowed."""
    return ours.median <= slack * OF_CALLS * empty.median


def beside(name: str, peer: Figure, ours: Figure, least: Figure, plan: Plan) -> Row:
    """Compare with a peer, and note the least that any equivalent middleware would cost."""
    part = OF[name]
    floor = f"the least that looks up and sets the same: {least.median / peer.median:.3f} of it"
    over = f"; no middleware takes less than {least.median:.2f} us, and the goal is {part * peer.median:.2f} us"
    return Row(
        f"warm request beside {name}",
        "us",
        ours,
        {name: peer},
        f"<= {part:.3f} of it",
        ours.median <= plan.slack * part * peer.median,
        (floor + (over if least.median > part * peer.median else ""),),
    )


def added(wrapped: ASGIApp, count: int) -> Callable[[], Any]:
    """Return a contestant: the time of a request with a middleware minus that without it."""
    bare, full = best_of(lambda: requests(application, count)), best_of(lambda: requests(wrapped, count))

    async def difference() -> float:
        await requests(wrapped, 10)
        without = await bare()
        return await full() - without

    return difference


async def tokens(broker: TokenBroker, count: int) -> float:
    """Return the microseconds of one `broker.token`."""
    began = time.thread_time()
    for _ in range(count):
        assert (await broker.token("crm")).value
    return (time.thread_time() - began) / count * 1e6


class SettingAHeader:
    """The minimum of an auth object of an httpx client."""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Set the header."""
        request.headers["Authorization"] = "Bearer t"
        yield request


async def signed(auth: TokenAuth | SettingAHeader, count: int) -> float:
    """Return the microseconds of one request in an auth object: the token goes on, and the answer comes back."""
    requests = [httpx.Request("GET", "https://api.example/contacts") for _ in range(count)]
    answer = httpx.Response(200, request=requests[0])
    began = time.thread_time()
    for request in requests:
        flow = auth.async_auth_flow(request)
        await anext(flow)
        with suppress(StopAsyncIteration):
            await flow.asend(answer)
    return (time.thread_time() - began) / count * 1e6


async def calls(count: int) -> float:
    """Return the microseconds of 200 calls of an empty function."""

    def empty() -> None:
        pass

    began = time.thread_time()
    for _ in range(count * 200):
        empty()
    return (time.thread_time() - began) / count * 1e6
