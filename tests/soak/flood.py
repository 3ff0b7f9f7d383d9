"""Requests of every kind that might leak memory: distinct keys and tenants, failures, rejected tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from tests.soak.load import SECRET, Load, serve
from tokenmw import Limits, TokenBroker
from tokenmw.observe.prometheus import PrometheusObserver
from tokenmw.providers import ClientCredentials

__all__ = ["Flood"]

_FAILING = (b"rejected", b"error", b"garbage", b"lifeless", b"refused")


class Flood(Load):
    """Requests of all kinds to two brokers: one without and one with `authenticate`."""

    def __init__(self, redis: str, *, limits: Limits, step: float, regulars: int) -> None:
        super().__init__(step=step)
        self._regulars = regulars
        options: dict[str, Any] = {"redis": redis, "secret_key": SECRET, "clock": self.clock, "limits": limits}
        registry: Any = CollectorRegistry()
        observers = [PrometheusObserver(registry=registry)]
        self.brokers = (
            TokenBroker({"tenant": self._tenant_of}, observers=observers, **options),
            TokenBroker({}, authenticate=_caller, namespace="authenticated", **options),
        )
        # The percentage of each kind.
        self._kinds: dict[Callable[[int], Awaitable[int]], int] = {
            self._new_key: 45,
            self._known_key: 20,
            self._no_key: 3,
            self._new_tenant: 6,
            self._failing_tenant: 5,
            self._rejected_value: 5,
            self._reset: 4,
            self._foreign_key: 12,
        }

    async def request(self, number: int) -> int:
        """Send a request of a random kind."""
        (kind,) = self.random.choices(list(self._kinds), list(self._kinds.values()))
        return await kind(number)

    def _tenant_of(self, connection: HTTPConnection) -> ClientCredentials:
        # The first part of the tenant's name is how its requests are answered.
        tenant = connection.headers["x-tenant"]
        url = self.endpoint.url(tenant.partition("-")[0])
        return ClientCredentials(token_url=url, client_id=tenant, client_secret="s")

    async def _new_key(self, number: int) -> int:
        return await serve(self.apps[0], [(b"authorization", b"Bearer sk-%d" % number)])

    async def _known_key(self, number: int) -> int:
        return await serve(self.apps[0], [(b"x-api-key", b"regular-%d" % (number % self._regulars))])

    async def _no_key(self, number: int) -> int:
        return await serve(self.apps[0], [(b"x-api-key", b"k" * 5_000)] if number % 2 else [])

    async def _new_tenant(self, number: int) -> int:
        return await serve(self.apps[0], [(b"x-api-key", b"regular-0"), (b"x-tenant", b"granted-%d" % number)])

    async def _failing_tenant(self, number: int) -> int:
        tenant = b"%b-%d" % (_FAILING[number % len(_FAILING)], number)
        return await serve(self.apps[0], [(b"x-api-key", b"regular-0"), (b"x-tenant", tenant)])

    async def _rejected_value(self, number: int) -> int:
        tenant = b"granted-regular-%d" % (number % self._regulars)
        return await serve(self.apps[0], [(b"x-tenant", tenant), (b"x-rejected", b"yes")])

    async def _reset(self, number: int) -> int:
        key = b"regular-%d" % (number % self._regulars) if number % 2 else b"reset-%d" % number
        await self.brokers[0].reset_session(key)
        return 204

    async def _foreign_key(self, number: int) -> int:
        kind = (b"wrong", b"right", b"wrong", b"broken")[number % 4]
        # The accepted keys repeat; the others are all different.
        name = number % (4 * self._regulars) if kind == b"right" else number
        return await serve(self.apps[1], [(b"x-api-key", b"%b-%d" % (kind, name))])


async def _caller(_connection: HTTPConnection, key: str) -> object | None:
    await asyncio.sleep(0)
    if key.startswith("broken"):
        raise LookupError
    return key if key.startswith("right") else None
