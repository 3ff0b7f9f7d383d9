"""Thousands of hostile requests a second through the real middleware, beside callers whose sessions are known.

Hostile requests are started at a steady rate, whether or not the ones before have been answered, as a server does that
accepts connections; beyond a number in progress they are dropped, as by uvicorn's `limit_concurrency`.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from starlette.requests import HTTPConnection

from tests.soak.load import SECRET, Headers, application, serve
from tokenmw import Limits, TokenBroker, TokenMiddleware

__all__ = ["Figures", "Hostile"]

_TICK = 0.001  # seconds between two groups of hostile requests
_MOST_IN_PROGRESS = 1_000
_WARM, _COLD = 500, 500  # known callers: in this process's memory, and in Redis only
_KNOWN_EVERY = 0.004  # seconds between two requests of known callers


@dataclass
class Figures:
    """What was measured.

    Attributes:
        seconds: How long it took.
        statuses: The number of hostile requests by status; those that were dropped have status 0.
        warm: Seconds from when a known caller's request was due until its response.
        served: Of these, the seconds after the event loop came to the request.
        cold: As `warm`, for callers that only Redis knows.
        wrong: Known callers that got another id.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter[int])
    warm: list[float] = field(default_factory=list[float], repr=False)
    served: list[float] = field(default_factory=list[float], repr=False)
    cold: list[float] = field(default_factory=list[float], repr=False)
    wrong: int = 0

    @property
    def rate(self) -> float:
        """Hostile requests answered in a second."""
        return (self.statuses.total() - self.statuses[0]) / self.seconds

    def lines(self) -> list[str]:
        """Return what is printed."""
        by_status = dict(sorted(self.statuses.items()))
        parts = {"warm": self.warm, "of which served": self.served, "cold": self.cold}
        return [
            f"{self.rate:.0f} hostile requests/s answered, {self.statuses[0]} dropped; by status: {by_status}",
            *(
                f"known callers, {name}: p50 {percentile(part, 50):.3f} ms, p99 {percentile(part, 99):.3f} ms"
                for name, part in parts.items()
            ),
        ]


def percentile(seconds: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    return 1e3 * statistics.quantiles(seconds, n=100)[percent - 1]


class Hostile:
    """Two brokers on one Redis, without and with `authenticate`, and callers of them."""

    def __init__(self, redis: str, *, limits: Limits) -> None:
        options: dict[str, Any] = {"redis": redis, "secret_key": SECRET, "limits": limits}
        self.brokers = (TokenBroker({}, **options), TokenBroker({}, authenticate=_caller, namespace="auth", **options))
        self._options = options
        self._open, self._checked = (TokenMiddleware(application, broker=broker) for broker in self.brokers)
        self._random = random.Random(1)
        self._in_progress = 0
        self._ids: dict[bytes, str] = {}
        # The percentage of each kind.
        kinds: dict[Callable[[], tuple[TokenMiddleware, Headers]], int] = {
            self._random_key: 40,
            self._long_key: 10,
            self._too_long_key: 5,
            self._invalid_encoding: 10,
            self._no_key: 15,
            self._refused_key: 20,
        }
        self._kinds = list(kinds)
        self._weights = list(kinds.values())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            other = await stack.enter_async_context(TokenBroker({}, **self._options))
            for number in range(_WARM + _COLD):
                key = b"known-%d" % number
                self._ids[key] = await other.session_id(key)
        self._stack = await AsyncExitStack().__aenter__()
        for broker in self.brokers:
            await self._stack.enter_async_context(broker)
        for key in list(self._ids)[:_WARM]:
            await serve(self._open, [(b"x-api-key", key)])
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def send(self, *, rate: float, seconds: float) -> Figures:
        """Send hostile requests at a rate, and those of known callers beside them."""
        figures, began = Figures(), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            known = tasks.create_task(self._known_callers(figures, seconds=seconds))
            sent = 0
            while (passed := time.perf_counter() - began) < seconds:
                kinds = self._random.choices(self._kinds, self._weights, k=int(passed * rate) - sent)
                sent += len(kinds)
                for kind in kinds:
                    if self._in_progress >= _MOST_IN_PROGRESS:
                        figures.statuses[0] += 1
                    else:
                        self._in_progress += 1
                        tasks.create_task(self._request(kind, figures.statuses))
                await asyncio.sleep(_TICK)
            await known
        figures.seconds = time.perf_counter() - began
        return figures

    async def _request(self, kind: Callable[[], tuple[TokenMiddleware, Headers]], statuses: Counter[int]) -> None:
        app, headers = kind()
        statuses[await serve(app, headers)] += 1
        self._in_progress -= 1

    async def _known_callers(self, figures: Figures, *, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        keys = list(self._ids)
        cold = iter(keys[_WARM:])
        began, sent = loop.time(), 0
        async with asyncio.TaskGroup() as tasks:
            while (passed := loop.time() - began) < seconds:
                for number in range(sent, int(passed / _KNOWN_EVERY)):
                    due = began + (number + 1) * _KNOWN_EVERY
                    tasks.create_task(self._known(keys[number % _WARM], figures, figures.warm, due))
                    if number % 10 == 0 and (key := next(cold, None)) is not None:
                        tasks.create_task(self._known(key, figures, figures.cold, due))
                sent = int(passed / _KNOWN_EVERY)
                await asyncio.sleep(_TICK)

    async def _known(self, key: bytes, figures: Figures, times: list[float], due: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await self._session_id(key)
        ended = loop.time()
        times.append(ended - due)
        if times is figures.warm:
            figures.served.append(ended - began)
        figures.wrong += found != self._ids[key]

    async def _session_id(self, key: bytes) -> str:
        found: list[str] = []

        async def send(_message: object) -> None:
            found.append(scope["state"]["session_id"])

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        headers = [(b"x-api-key", key)]
        scope: dict[str, Any] = {"type": "http", "path": "/", "method": "GET", "headers": headers, "query_string": b""}
        await self._open(scope, receive, send)
        return found[0]

    def _random_key(self) -> tuple[TokenMiddleware, Headers]:
        return self._open, [(b"authorization", b"Bearer " + os.urandom(16).hex().encode())]

    def _long_key(self) -> tuple[TokenMiddleware, Headers]:
        return self._open, [(b"x-api-key", os.urandom(16).hex().encode() * 128)]  # 4 096 bytes

    def _too_long_key(self) -> tuple[TokenMiddleware, Headers]:
        return self._open, [(b"x-api-key", os.urandom(16).hex().encode() * 200)]

    def _invalid_encoding(self) -> tuple[TokenMiddleware, Headers]:
        return self._open, [(b"x-api-key", b"\xff\xfe\xed" + os.urandom(12).replace(b"\n", b""))]

    def _no_key(self) -> tuple[TokenMiddleware, Headers]:
        return self._open, []

    def _refused_key(self) -> tuple[TokenMiddleware, Headers]:
        return self._checked, [(b"x-api-key", os.urandom(16).hex().encode())]


async def _caller(_connection: HTTPConnection, _key: str) -> object | None:
    await asyncio.sleep(0)
    return None
