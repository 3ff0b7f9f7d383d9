"""Two instances of one service with faults, and what operators see of them: page, JSON, metrics and command line."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx2
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tests.demo.commands import run
from tests.redis.waiting import until
from tests.servers import RedisServer
from tests.status_app.serving import client_of
from tokenmw import Limits, TokenBroker, TokenMiddleware
from tokenmw.observe.prometheus import PrometheusObserver
from tokenmw.providers import ClientCredentials
from tokenmw.status_app import StatusApp
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from starlette.requests import HTTPConnection, Request

__all__ = ["PROVIDERS", "Seen", "see_broken_fleet"]

SECRET_KEY: Final = "a secret for the tests only"
PROVIDERS: Final = ("crm", "erp", "mail", "tenants")
"""Of `crm` there is a token, `erp` rejects the credential, `mail` is busy, and `tenants` depends on the request."""
_PROGRAM: Final = """
from tokenmw import TokenBroker
from tokenmw.providers import ClientCredentials

crm = ClientCredentials(token_url="{good}/oauth2/token", client_id="crm", client_secret="right")
erp = ClientCredentials(token_url="{good}/oauth2/token", client_id="erp", client_secret="wrong")
mail = ClientCredentials(token_url="{busy}/oauth2/token", client_id="mail", client_secret="right")
broker = TokenBroker(
    {{"crm": crm, "erp": erp, "mail": mail, "tenants": lambda connection: erp}}, redis="{redis}", secret_key="{key}"
)
"""


@dataclass
class Seen:
    """What operators see of one instance at one time; the command line asks Redis and the providers.

    Attributes:
        json: `/status.json`.
        page: The page, without tags.
        metrics: Each series: its name, its labels, and its value.
        check: The output of `tokenmw check`.
        inspect: The output of `tokenmw inspect`.
    """

    json: dict[str, Any]
    page: str
    metrics: list[tuple[str, dict[str, str], float]]
    check: str
    inspect: str

    def at(self, path: str) -> list[Any]:
        """Return the values at a path of the JSON, such as `providers[].state`; of an array, those that have it."""
        values: list[Any] = [self.json]
        for name in re.split(r"\.", path):
            key, array = name.removesuffix("[]"), name.endswith("[]")
            values = [value[key] for value in values if key in value]
            if array:
                values = [one for value in values for one in value]
        return values

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the series of a metric that have these labels; of a histogram, the number of values."""
        found = [
            value
            for series, its, value in self.metrics
            if series in (name, f"{name}_count") and labels.items() <= its.items()
        ]
        assert found, f"no series {name} {labels}"
        return sum(found)


def _providers(good: str, busy: str) -> dict[str, Any]:
    def of_tenant(connection: HTTPConnection) -> ClientCredentials:
        tenant = connection.headers.get("x-tenant", "")
        return ClientCredentials(token_url=f"{good}/oauth2/token", client_id=tenant, client_secret="wrong")

    def named(url: str, client: str, secret: str) -> ClientCredentials:
        return ClientCredentials(token_url=f"{url}/oauth2/token", client_id=client, client_secret=secret)

    return {
        "crm": named(good, "crm", "right"),
        "erp": named(good, "erp", "wrong"),
        "mail": named(busy, "mail", "right"),
        "tenants": of_tenant,
    }


@dataclass
class _Instance:
    broker: TokenBroker
    registry: CollectorRegistry
    client: httpx2.AsyncClient

    @property
    def invalidated_by_instance(self) -> float:
        """How many tokens were dropped because another instance had invalidated them."""
        labels = {"provider": "crm", "cause": "instance"}
        return self.registry.get_sample_value("tokenmw_tokens_invalidated_total", labels) or 0.0

    async def get(self, provider: str, *, key: str = "alice", tenant: str = "t") -> int:
        """Send a request that needs a token, and return the status of the answer."""
        headers = {"x-tenant": tenant, **({"x-api-key": key} if key else {})}
        return (await self.client.get(f"/{provider}", headers=headers)).status_code

    async def see(self, directory: Path) -> Seen:
        """Return what operators see now."""
        await asyncio.sleep(1.5)  # counts are published once a second
        families = text_string_to_metric_families(generate_latest(self.registry).decode())
        page = (await self.client.get("/_tokenmw/")).text
        json = (await self.client.get("/_tokenmw/status.json")).json()
        outputs = [
            (await asyncio.to_thread(run, command, "program:broker", directory=directory)).stdout
            for command in ("check", "inspect")
        ]
        return Seen(
            json,
            " ".join(re.sub(r"<style.*?</style>|<script.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL).split()),
            [(sample.name, dict(sample.labels), sample.value) for family in families for sample in family.samples],
            *outputs,
        )


@contextlib.asynccontextmanager
async def _instance(providers: dict[str, Any], redis: str) -> AsyncGenerator[_Instance]:
    registry = CollectorRegistry()
    broker = TokenBroker(
        providers,
        redis=redis,
        secret_key=SECRET_KEY,
        observers=[PrometheusObserver(registry)],
        limits=Limits(command_seconds=1.0),
        missing_key="reject",
    )

    async def use(request: Request) -> PlainTextResponse:
        token = await request.state.tokens.resolve(request.path_params["provider"])
        return PlainTextResponse(token.token_type)

    app = Starlette(
        routes=[Mount("/_tokenmw", StatusApp(broker, allow_all=True)), Route("/{provider}", use)],
        middleware=[Middleware(TokenMiddleware, broker=broker, exempt=["/_tokenmw/*"])],
    )
    async with client_of(app) as client:
        yield _Instance(broker, registry, client)


async def see_broken_fleet(directory: Path) -> tuple[Seen, Seen]:
    """Return what is seen while providers fail, and what is seen when Redis has failed as well."""
    server, busy_server = ProviderServer(clients={"crm": "right"}), ProviderServer()
    busy_server.oauth2.script.always = Fault(status=503)
    with RedisServer() as redis, server.running() as good, busy_server.running() as busy:
        program = _PROGRAM.format(good=good, busy=busy, redis=redis.url, key=SECRET_KEY)
        (directory / "program.py").write_text(program)
        providers = _providers(good, busy)
        # The third one has another secret, as after half of a rotation.
        third = TokenBroker({}, redis=redis.url, secret_key="another secret of the tests")
        async with _instance(providers, redis.url) as one, _instance(providers, redis.url) as other, third:
            for instance in (one, other):
                assert [200, 502, 503] == [await instance.get(provider) for provider in PROVIDERS[:3]]
                assert [502, 502] == [await instance.get("tenants", tenant=tenant) for tenant in ("a", "b")]
                assert 401 == await instance.get("crm", key="")
            # The first one sees an invalidation by an operator of the other.
            await other.broker.invalidate_provider("crm")
            await until(lambda: one.invalidated_by_instance >= 1, within=5)
            assert [200, 200] == [await one.get("crm"), await other.get("crm")]
            first = await one.see(directory)

            redis.kill()
            # New callers are commands to Redis, whose failures open the circuit breaker.
            for number in range(20):
                assert 200 == await one.get("crm", key=f"key-{number}")
            await until(lambda: one.broker.status().shared == "down", within=10)
            await one.broker.invalidate_provider("crm")
            assert 200 == await one.get("crm", key="another")
            return first, await one.see(directory)
