"""A refresh is one span: what it asks is below it, and the requests that waited for it are linked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import tokenmw
from tokenmw import CredentialRejected, Provider, TokenBroker
from tokenmw.observe.opentelemetry import OpenTelemetryObserver
from tokenmw.values import Grant

if TYPE_CHECKING:
    from tests.servers import RedisServer
    from tokenmw.providers.http import TokenHTTP

TRACING = TracerProvider()
TRACER = TRACING.get_tracer("a program")
EXPORTER = InMemorySpanExporter()
TRACING.add_span_processor(SimpleSpanProcessor(EXPORTER))
REJECTING: list[bool] = []


class Traced(Provider):
    """A provider whose HTTP client makes spans, as one with instrumentation does."""

    __slots__ = ()
    kind = "traced"

    def identity(self) -> tuple[object, ...]:
        return ("canary-secret",)

    async def fetch(self, http: TokenHTTP) -> Grant:
        with TRACER.start_as_current_span("POST"):
            await asyncio.sleep(0.05)
        if REJECTING:
            raise CredentialRejected("refused")
        return Grant("canary-token", expires_in=3600)


class TracedRedis(redis.asyncio.Redis):
    """A Redis client that makes a span for each command, as one with instrumentation does."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with TRACER.start_as_current_span(str(args[0])):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def _reset() -> None:
    EXPORTER.clear()
    REJECTING.clear()


@pytest.fixture
async def broker(redis_server: RedisServer) -> AsyncIterator[TokenBroker]:
    """Return an open broker whose refreshes are traced."""
    client = TracedRedis.from_url(redis_server.url)
    async with TokenBroker(
        {"crm": Traced()},
        redis=client,
        secret_key="a secret of some length",
        observers=[OpenTelemetryObserver(tracer_provider=TRACING)],
        hints=False,
    ) as broker:
        EXPORTER.clear()  # what opening does
        yield broker
    await client.aclose()


async def request(broker: TokenBroker, name: str) -> None:
    """Handle a request, which has a span of its own."""
    with TRACER.start_as_current_span(name):
        await broker.token("crm")


def spans() -> dict[str, ReadableSpan]:
    """Return the finished spans by their names."""
    return {span.name: span for span in EXPORTER.get_finished_spans()}


async def test_commands_and_requests_of_a_refresh_are_below_its_span(broker: TokenBroker) -> None:
    """They were root spans of a trace each."""
    await request(broker, "GET /")
    refresh = spans()["tokenmw.token.fetch"]
    assert refresh.context is not None
    assert refresh.parent is None
    for name in ("EVALSHA", "POST"):
        inner = spans()[name]
        assert inner.parent is not None
        assert refresh.context.span_id == inner.parent.span_id
    assert {"tokenmw.provider": "crm", "tokenmw.outcome": "renewed"} == dict(refresh.attributes or {})
    assert ["tokenmw.lease", "tokenmw.fetched"] == [event.name for event in refresh.events]
    assert refresh.instrumentation_scope is not None
    assert ("tokenmw", tokenmw.__version__) == (
        refresh.instrumentation_scope.name,
        refresh.instrumentation_scope.version,
    )


async def test_requests_that_waited_are_linked(broker: TokenBroker) -> None:
    """The refresh has a link to each of them, also to one that came later, and each has an event."""
    first = asyncio.create_task(request(broker, "first"))
    await asyncio.sleep(0.02)
    await request(broker, "second")
    await first
    refresh = spans()["tokenmw.token.fetch"]
    requests = [spans()["first"], spans()["second"]]
    assert [one.context.span_id for one in requests if one.context] == [link.context.span_id for link in refresh.links]
    for one in requests:
        (event,) = one.events
        assert "tokenmw.token.waited" == event.name
        assert "waited" == (event.attributes or {})["tokenmw.result"]
    await request(broker, "warm")
    assert () == spans()["warm"].events


async def test_a_failed_refresh_has_the_reason(broker: TokenBroker) -> None:
    """Its status is an error, and `error.type` is one word."""
    REJECTING.append(True)
    with pytest.raises(CredentialRejected):
        await request(broker, "GET /")
    refresh = spans()["tokenmw.token.fetch"]
    assert StatusCode.ERROR == refresh.status.status_code
    assert refresh.attributes is not None
    assert ("failed", "rejected") == (refresh.attributes["tokenmw.outcome"], refresh.attributes["error.type"])
    assert "canary" not in refresh.to_json()


async def test_a_refresh_that_is_cancelled_has_a_span(redis_server: RedisServer) -> None:
    """Closing the broker ends its refreshes, and their spans; none is kept."""
    observer = OpenTelemetryObserver(tracer_provider=TRACING)
    async with TokenBroker({"crm": Traced()}, observers=[observer]) as broker:
        task = asyncio.create_task(broker.token("crm"))
        await asyncio.sleep(0.02)
    with pytest.raises(tokenmw.TokenUnavailable):
        await task
    assert "cancelled" == (spans()["tokenmw.token.fetch"].attributes or {})["tokenmw.outcome"]
    assert ({}, {}) == (observer._spans._started, observer._spans._waiting)
