"""Requests through the real middleware and broker, in process, on a clock that each request advances."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, Self

import cachetools
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.soak.endpoint import Endpoint
from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.status import Status
from tokenmw.testing import ManualClock

__all__ = ["CONCURRENCY", "SECRET", "Headers", "Load", "application", "serve"]

SECRET = "a secret for the tests only"
Headers = list[tuple[bytes, bytes]]
CONCURRENCY = 16  # requests


async def application(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer, after using the tenant's token if the request names one, and reporting it as rejected if it says so."""
    state, headers = scope["state"], dict(scope["headers"])
    assert state["session_id"]
    if b"x-tenant" in headers:
        token = await state["tokens"].resolve("tenant")
        if b"x-rejected" in headers:
            await state["tokens"]._broker.invalidate(token)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def serve(app: ASGIApp, headers: Headers) -> int:
    """Serve one request, and return the status of its response."""
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: dict[str, Any] = {"type": "http", "path": "/", "method": "GET", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    return status


class Load(ABC):
    """Sends requests to brokers. A subclass makes the brokers, and implements `request`.

    Attributes:
        clock: The brokers' time; each request advances it by `step` seconds.
        endpoint: The token endpoint of all tenants.
        brokers: The brokers whose memory is measured; the first has no `authenticate`.
        apps: The middleware of each broker.
        statuses: The number of responses by status.
        served: The number of requests.
        random: A generator with the same numbers in each run.
    """

    def __init__(self, *, step: float, lifetime: float = 3600.0) -> None:
        self.clock = ManualClock()
        self.endpoint = Endpoint(lifetime=lifetime)
        self.statuses: Counter[int] = Counter()
        self.served = 0
        self.random = random.Random(1)
        self.brokers: tuple[TokenBroker, ...] = ()
        self.apps: tuple[TokenMiddleware, ...] = ()
        self._step = step

    @abstractmethod
    async def request(self, number: int) -> int:
        """Send one request, and return its status."""

    async def __aenter__(self) -> Self:
        self._stack = await AsyncExitStack().__aenter__()
        await self._stack.enter_async_context(self.endpoint)
        for broker in self.brokers:
            await self._stack.enter_async_context(broker)
        self.apps = tuple(TokenMiddleware(application, broker=broker) for broker in self.brokers)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def roots(self) -> tuple[object, ...]:
        """The objects of the package."""
        return (*self.brokers, *self.apps)

    @property
    def outside(self) -> tuple[object, ...]:
        """The objects of the test."""
        return (self, self.clock, self.endpoint, self.statuses, self.random)

    async def send(self, count: int) -> None:
        """Send `count` requests, some of them at the same time, and wait for all responses."""
        end = self.served + count

        async def caller() -> None:
            while self.served < end:
                self.served += 1
                self.clock.advance(self._step)
                self.statuses[await self.request(self.served)] += 1

        # Else the clock would stop once all callers wait for something that takes time, such as another lease.
        time = asyncio.create_task(self._advance_clock())
        try:
            async with asyncio.TaskGroup() as callers:
                for _ in range(CONCURRENCY):
                    callers.create_task(caller())
        finally:
            time.cancel()
            await asyncio.wait([time])

    async def _advance_clock(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.clock.advance(0.05)

    async def wait_until_shared(self) -> None:
        """Let time pass until Redis is available and everything is uploaded; sockets use real time."""
        async with asyncio.timeout(60):
            while not all(_is_shared(broker.status()) for broker in self.brokers):
                self.clock.advance(0.25)
                await asyncio.sleep(0.01)

    def sizes(self) -> dict[str, int]:
        """Return the largest size in any broker of each part with a bound in `Limits`, by the bound's name."""
        most: dict[str, int] = {}
        for broker in self.brokers:
            data = broker._data
            sizes = {
                "sessions": len(data.sessions),
                "tokens": len(data.tokens._recent),
                "rejected": len(data.rejected),
                "refused_keys": cachetools.Cache.__len__(data.refused_keys),  # counts expired ones
                "touches": broker.status().touches,
            }
            most = {name: max(count, most.get(name, 0)) for name, count in sizes.items()}
        return most


def _is_shared(status: Status) -> bool:
    return status.shared == "up" and not status.unshared and not status.touches
