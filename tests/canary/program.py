"""The program whose output is searched: brokers with many configurations in one process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx2
import jsonpickle
import structlog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from tests.canary.credentials import API_KEYS, FAILING, SECRETS, providers_of
from tests.canary.rendering import rendered
from tokenmw import APIKeySource, Limits, TokenBroker
from tokenmw.observe.logging import LoggingObserver
from tokenmw.observe.opentelemetry import OpenTelemetryObserver
from tokenmw.observe.prometheus import PrometheusObserver
from tokenmw.observe.structlog import StructlogObserver

if TYPE_CHECKING:
    from tokenmw import Provider
    from tokenmw.observe import Event

__all__ = ["INJECTED", "Program"]

# Long, so that an outage is the only cause of a time-out, also on a busy machine.
LIMITS: Final = Limits(command_seconds=10.0, fetch_seconds=20.0, lease_seconds=25.0, wait_seconds=40.0)
API_KEY: Final = APIKeySource(query=["key"], cookies=["key"])
INJECTED: Final = ("basic/grants", "wecom/grants", "basic/refuses", "entra/unreachable", "dingtalk_legacy/fails")


class Program:
    """All brokers of one process.

    Args:
        redis: The URL of Redis, with its password.
        ports: The port of the endpoints (`grants`), and a closed one (`unreachable`).
        output: Receives each text that the program prints.

    Attributes:
        sealed: Seals its values and names its keys by `name_key`.
        plain: Does not seal its values, and sends its token requests through an HTTP client of the program.
    """

    def __init__(self, *, redis: str, ports: dict[str, int], output: Callable[[str], object]) -> None:
        self.redis = redis
        self.ports = ports
        self._kept: list[object] = []
        self._output = output
        self.registry = CollectorRegistry()
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.spans = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.spans))
        # Without verification, because loading the certificates is slow.
        self.clients = (httpx.AsyncClient(verify=False, follow_redirects=True), httpx2.AsyncClient(verify=False))
        granting = providers_of("grants", port=ports["grants"])
        providers: dict[str, Any] = {**granting, "chosen": _unknown_tenant}
        for behaviour in (*FAILING, "grants-a-type"):
            port = ports["unreachable" if behaviour == "unreachable" else "grants"]
            providers |= providers_of(behaviour, port=port)
        common: dict[str, Any] = {"limits": LIMITS, "api_key": API_KEY, "observers": [self.write]}
        observed: dict[str, Any] = {**common, "observers": self._observers()}
        self.sealed = TokenBroker(
            providers,
            redis=redis,
            secret_key=[SECRETS["secret_key"], SECRETS["older secret_key"]],
            name_key=SECRETS["name_key"],
            authenticate=_authenticate,
            **observed,
        )
        self.plain = TokenBroker(
            providers,
            redis=redis,
            secret_key=SECRETS["secret_key"],
            seal=False,
            namespace="plain",
            http=self.clients[1],
            **common,
        )
        rest: dict[str, Any] = {**common, "http": self.clients[0]}
        self.others = [
            TokenBroker(granting, **rest),
            TokenBroker(granting, redis=redis, namespace="plain:without-key", **rest),
            *(TokenBroker(granting, redis=url, **rest) for url in self._wrong_urls(redis)),
            *(
                TokenBroker(granting, redis=redis, secret_key=SECRETS[name], name_key=SECRETS["name_key"], **rest)
                for name in ("older secret_key", "foreign secret_key")
            ),
        ]

    def new_brokers(self) -> list[TokenBroker]:
        """Make brokers with empty caches. They share namespaces only with those that this method made before."""
        common: dict[str, Any] = {"limits": LIMITS, "redis": self.redis, "http": self.clients[0]}
        granting = providers_of("grants", port=self.ports["grants"])
        return [
            TokenBroker(granting, namespace="new", secret_key=SECRETS["secret_key"], observers=[self.write], **common),
            TokenBroker(granting, namespace="plain:new", observers=[self.write], **common),
        ]

    def _observers(self) -> list[Callable[[Event], None]]:
        return [
            self.write,
            PrometheusObserver(self.registry),
            OpenTelemetryObserver(self.meters, self.traces),
            LoggingObserver(leave_out=()),
            StructlogObserver(structlog.wrap_logger(structlog.PrintLogger(sys.stderr)), leave_out=()),
            _broken_observer,
        ]

    def _wrong_urls(self, redis: str) -> list[str]:
        credentials, _, address = redis.rpartition("@")
        # A closed port, a server that is not Redis, without and with TLS, and a wrong password.
        urls = [f"{credentials}@127.0.0.1:{port}/0" for port in self.ports.values()]
        return [*urls, urls[0].replace("redis://", "rediss://"), f"{credentials}x@{address}"]

    @property
    def brokers(self) -> list[TokenBroker]:
        """All brokers."""
        return [self.sealed, self.plain, *self.others]

    @asynccontextmanager
    async def running(self, _app: Any) -> AsyncGenerator[None]:
        """Open all brokers, apart from `sealed`, which its middleware opens."""
        async with AsyncExitStack() as stack:
            for client in self.clients:
                await stack.enter_async_context(client)
            await asyncio.gather(*map(stack.enter_async_context, [self.plain, *self.others]))
            yield

    def write(self, *values: object) -> None:
        """Print what a program might print of values: their `str`, `repr` and attributes, and reports of errors."""
        for value in values:
            self._output(rendered(value) if isinstance(value, BaseException) else f"{value} {value!r} {vars_of(value)}")

    def keep(self, value: object) -> None:
        """Keep a reference until the process exits."""
        self._kept.append(value)

    def write_state(self, *brokers: TokenBroker) -> None:
        """Print brokers, their status and their inner objects."""
        for broker in brokers:
            parts = (broker, broker._credentials, *broker._data.tokens, broker._settings, broker._data, broker._runtime)
            self.write(broker.status(), broker._settings.sealer, *parts)
            encode: Any = jsonpickle.encode  # pyright: ignore[reportUnknownVariableType]  it has no types
            self._output(encode(parts, keys=True))

    def write_metrics(self) -> None:
        """Print all metrics and the tasks of the event loop."""
        self._output(generate_latest(self.registry).decode())
        self._output(str(self.reader.get_metrics_data()))
        for span in self.spans.get_finished_spans():
            self._output(span.to_json())
        tasks = [*asyncio.all_tasks()]
        self.write(*tasks, *(task.get_coro() for task in tasks))


def vars_of(value: object) -> str:
    """Return the attributes of an object, as an encoder finds them."""
    return repr(getattr(value, "__dict__", ""))


def _broken_observer(_event: Event) -> None:
    raise RuntimeError("This observer is broken")


def _unknown_tenant(_connection: Any) -> Provider:
    raise LookupError("unknown tenant")


async def _authenticate(_connection: Any, key: str) -> object:
    if key == API_KEYS["failing"]:
        raise RuntimeError(f"The key store does not accept {key}")
    return None if key == API_KEYS["refused"] else {"caller": "known"}
