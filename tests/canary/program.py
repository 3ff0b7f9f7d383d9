"""The program whose output is searched: brokers of all sorts in one process, and what they tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx2
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from tests.canary.credentials import API_KEYS, FAILING, SECRETS, providers_of
from tests.canary.rendering import rendered
from tokenmw import APIKeySource, Limits, TokenBroker
from tokenmw.observe.opentelemetry import OpenTelemetryObserver
from tokenmw.observe.prometheus import PrometheusObserver

if TYPE_CHECKING:
    from tokenmw import Provider
    from tokenmw.observe import Event

__all__ = ["INJECTED", "SOURCE", "Program"]

# Generous, so that it is an outage that is met, and not a machine that is busy.
LIMITS: Final = Limits(command_seconds=10.0, fetch_seconds=20.0, lease_seconds=25.0, wait_seconds=40.0)
SOURCE: Final = APIKeySource(query=["key"], cookies=["key"])
INJECTED: Final = ("basic/grants", "wecom/grants", "basic/refuses", "entra/nobody", "dingtalk_legacy/fails")


class Program:
    """All brokers of one process.

    Args:
        redis: The way to Redis, with its password.
        ports: Where the endpoints listen (`grants`), and where nobody does (`nobody`).
        write: Takes a text that the program writes to its standard output.

    Attributes:
        sealed: Has all that protects.
        plain: Does not seal what it writes, and sends its token requests through a client of the user's.
    """

    def __init__(self, *, redis: str, ports: dict[str, int], write: Callable[[str], object]) -> None:
        self.redis = redis
        self.ports = ports
        self._kept: list[object] = []
        self._write = write
        self.registry = CollectorRegistry()
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        # Made once, and without certificates, because reading those takes long.
        self.clients = (httpx.AsyncClient(verify=False, follow_redirects=True), httpx2.AsyncClient(verify=False))
        granting = providers_of("grants", port=ports["grants"])
        providers: dict[str, Any] = {**granting, "chosen": _choose}
        for way in (*FAILING, "grants-a-type"):
            providers |= providers_of(way, port=ports["nobody" if way == "nobody" else "grants"])
        common: dict[str, Any] = {"limits": LIMITS, "api_key": SOURCE, "observers": [self.say]}
        watched: dict[str, Any] = {**common, "observers": self._observers()}
        self.sealed = TokenBroker(
            providers,
            redis=redis,
            secret_key=[SECRETS["secret_key"], SECRETS["older secret_key"]],
            name_key=SECRETS["name_key"],
            authenticate=_caller,
            **watched,
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

    def newcomers(self) -> list[TokenBroker]:
        """Make brokers that hold nothing yet, and share with nobody but those that were made so before."""
        common: dict[str, Any] = {"limits": LIMITS, "redis": self.redis, "http": self.clients[0]}
        granting = providers_of("grants", port=self.ports["grants"])
        return [
            TokenBroker(granting, namespace="anew", secret_key=SECRETS["secret_key"], observers=[self.say], **common),
            TokenBroker(granting, namespace="plain:anew", observers=[self.say], **common),
        ]

    def _observers(self) -> list[Callable[[Event], None]]:
        return [self.say, PrometheusObserver(self.registry), OpenTelemetryObserver(self.meters), _fail]

    def _wrong_urls(self, redis: str) -> list[str]:
        way, _, place = redis.rpartition("@")
        # Nobody listens there; something that is no Redis does, without and with TLS; and another password.
        elsewhere = [f"{way}@127.0.0.1:{port}/0" for port in self.ports.values()]
        return [*elsewhere, elsewhere[0].replace("redis://", "rediss://"), f"{way}x@{place}"]

    @property
    def brokers(self) -> list[TokenBroker]:
        """All of them."""
        return [self.sealed, self.plain, *self.others]

    @asynccontextmanager
    async def running(self, _app: Any) -> AsyncGenerator[None]:
        """Open all brokers but the two that their middlewares open."""
        async with AsyncExitStack() as stack:
            for client in self.clients:
                await stack.enter_async_context(client)
            await asyncio.gather(*map(stack.enter_async_context, [self.plain, *self.others]))
            yield

    def say(self, *things: object) -> None:
        """Write what a program might print: texts and renderings of objects."""
        for thing in things:
            self._write(rendered(thing) if isinstance(thing, BaseException) else f"{thing} {thing!r} {vars_of(thing)}")

    def keep(self, thing: object) -> None:
        """Keep something until the end of the process."""
        self._kept.append(thing)

    def report(self, *brokers: TokenBroker) -> None:
        """Say what brokers say of themselves."""
        for broker in brokers:
            self.say(broker, broker.status(), broker._credentials, *broker._data.tokens, broker._settings.sealer)

    def count(self) -> None:
        """Say what the metrics say, and what the event loop does."""
        self._write(generate_latest(self.registry).decode())
        self._write(str(self.reader.get_metrics_data()))
        tasks = [*asyncio.all_tasks()]
        self.say(*tasks, *(task.get_coro() for task in tasks))


def vars_of(thing: object) -> str:
    """Return what an encoder finds that looks into an object."""
    return repr(getattr(thing, "__dict__", ""))


def _fail(_event: Event) -> None:
    raise RuntimeError("This observer is broken.")


def _choose(_connection: Any) -> Provider:
    raise LookupError("There is no such tenant.")


async def _caller(_connection: Any, key: str) -> object:
    if key == API_KEYS["failing"]:
        raise RuntimeError(f"The key store does not take {key}.")
    return None if key == API_KEYS["refused"] else {"caller": "known"}
