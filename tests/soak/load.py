"""Requests through the real middleware and broker, in process, on a clock that goes on with each of them."""

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

__all__ = ["SECRET", "SIDE_BY_SIDE", "Headers", "Load", "application", "serve"]

SECRET = "a secret for the tests only"
Headers = list[tuple[bytes, bytes]]
SIDE_BY_SIDE = 16  # requests


async def application(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer, after using the tenant's token if there is one; a token that the request calls rejected is dropped."""
    state, headers = scope["state"], dict(scope["headers"])
    assert state["session_id"]
    if b"x-tenant" in headers:
        token = await state["tokens"].resolve("tenant")
        if b"x-rejected" in headers:
            await state["tokens"].broker.invalidate(token)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def serve(app: ASGIApp, headers: Headers) -> int:
    """Be a server for one request, and return the status of its answer."""
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
    """Sends requests to brokers. A subclass makes these, and gives `request`.

    Attributes:
        clock: The brokers' time; each request takes `step` seconds of it.
        endpoint: Where tenants get their tokens.
        brokers: What is opened, and looked at for what it holds; the first has no `authenticate`.
        apps: The middleware of each.
        statuses: How often each status was answered.
        served: How many requests there were.
        random: The same numbers in each run.
    """

    def __init__(self, *, step: float, life: float = 3600.0) -> None:
        self.clock = ManualClock()
        self.endpoint = Endpoint(life=life)
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
        """All that is of the package."""
        return (*self.brokers, *self.apps)

    @property
    def outside(self) -> tuple[object, ...]:
        """What belongs to the test."""
        return (self, self.clock, self.endpoint, self.statuses, self.random)

    async def send(self, count: int) -> None:
        """Send so many requests, some side by side, and let what is under way end."""
        end = self.served + count

        async def caller() -> None:
            while self.served < end:
                self.served += 1
                self.clock.advance(self._step)
                self.statuses[await self.request(self.served)] += 1

        # Else it would stand still as soon as all callers wait for something that takes time, such as another's lease.
        time = asyncio.create_task(self._go_on())
        try:
            async with asyncio.TaskGroup() as callers:
                for _ in range(SIDE_BY_SIDE):
                    callers.create_task(caller())
        finally:
            time.cancel()
            await asyncio.wait([time])

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.clock.advance(0.05)

    async def shared_again(self) -> None:
        """Let time pass until Redis is in use and has been told of all; sockets have real time meanwhile."""
        async with asyncio.timeout(60):
            while not all(_is_shared(broker.status()) for broker in self.brokers):
                self.clock.advance(0.25)
                await asyncio.sleep(0.01)

    def held(self) -> dict[str, int]:
        """Return how much each part that has a bound in `Limits` holds at most in any broker, by the bound's name."""
        most: dict[str, int] = {}
        for broker in self.brokers:
            data = broker._data
            held = {
                "sessions": len(data.sessions),
                "tokens": len(data.tokens._recent),
                "rejected": len(data.rejected),
                "refused_keys": cachetools.Cache.__len__(data.refused_keys),  # with expired ones
                "touches": broker.status().touches,
            }
            most = {name: max(count, most.get(name, 0)) for name, count in held.items()}
        return most


def _is_shared(status: Status) -> bool:
    return status.shared == "up" and not status.unshared and not status.touches
