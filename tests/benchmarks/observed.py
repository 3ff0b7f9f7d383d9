"""What observers of Prometheus and OpenTelemetry cost a warm request, and what their sample costs each second."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from tests.benchmarks.asgi import application, requests
from tests.benchmarks.rows import Figure, Plan, Row, best_of, interleaved
from tests.brokers import runtime_of
from tests.servers import RedisServer
from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.observe.opentelemetry import OpenTelemetryObserver
from tokenmw.observe.prometheus import PrometheusObserver
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from tokenmw.observe import Observer

REQUESTS = 5_000
TENANTS = 1_000
GOAL = 1.15
WITHOUT, WITH = "without observers", "with observers"


async def run(plan: Plan) -> list[Row]:
    """Measure a warm request with a session id and a token, and a sample of many tenants."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        reader = InMemoryMetricReader()
        meters = MeterProvider([reader], shutdown_on_exit=False)
        stack.callback(meters.shutdown)
        observers: dict[str, list[Observer]] = {
            WITHOUT: [],
            WITH: [PrometheusObserver(CollectorRegistry()), OpenTelemetryObserver(meters, TracerProvider())],
        }
        options: dict[str, Any] = {"redis": server.url, "secret_key": "a secret for this run"}
        brokers = {
            name: await stack.enter_async_context(
                TokenBroker({"crm": StaticToken("t")}, **options, observers=observers[name])
            )
            for name in observers
        }
        apps = {name: TokenMiddleware(application, broker=broker, inject=["crm"]) for name, broker in brokers.items()}
        count = plan.of(REQUESTS)
        for app in apps.values():
            await requests(app, 10)
        contestants = {name: best_of(partial(requests, app, count)) for name, app in apps.items()}
        figures = await interleaved(contestants, rounds=plan.rounds)
        broker = brokers[WITH]
        for number in range(plan.of(TENANTS)):
            await broker.token(StaticToken(f"t{number}"))
        samples = await interleaved({"sample": partial(_sample, broker)}, rounds=plan.rounds)
    ratio = figures[WITH].median / figures[WITHOUT].median
    return [
        Row(
            "warm request with Prometheus and OpenTelemetry",
            "us",
            figures[WITH],
            {WITHOUT: figures[WITHOUT]},
            goal=f"<= {GOAL} of one without",
            met=ratio <= 1 + (GOAL - 1) * plan.slack,
        ),
        Row(f"their sample each second, {plan.of(TENANTS)} tenants", "us", _first(samples)),
    ]


def _first(figures: dict[str, Figure]) -> Figure:
    return next(iter(figures.values()))


async def _sample(broker: TokenBroker) -> float:
    """Return the microseconds of one sample."""
    sampler = runtime_of(broker)._sampler
    assert sampler is not None
    began = time.thread_time()
    sampler.publish()
    return (time.thread_time() - began) * 1e6
