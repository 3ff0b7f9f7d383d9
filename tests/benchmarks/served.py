"""A real server, uvicorn, with and without middleware: throughput, and processor time per request."""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from functools import partial

from tests.benchmarks.asgi import HEADERS
from tests.benchmarks.loading import loaded
from tests.benchmarks.rows import Figure, Plan, Row
from tests.benchmarks.serving import BARE, LEAST, OURS, STARLETTE
from tests.processes import Workers
from tests.servers import RedisServer

REQUESTS, CONNECTIONS = 480, 16
ROUNDS = 40  # many short ones: noise of the machine affects neighbouring rounds alike
GOAL = 0.97
FROZEN, KILLED = "tokenmw, Redis frozen", "tokenmw, Redis killed"
REQUEST = b"GET / HTTP/1.1\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in HEADERS) + b"\r\n"


async def run(plan: Plan) -> list[Row]:
    """Load servers with one process and with two."""
    return [*await by_workers(1, plan), *await by_workers(2, plan)]


class Served:
    """One application in one or more processes on one port."""

    def __init__(self, kind: str, processes: int, *, stack: AsyncExitStack, redis: str | None = None) -> None:
        self._kind = kind
        self._processes = processes
        self._stack = stack
        self._redis = redis
        self._workers: list[Workers] = []
        self._port = 0
        self.rates: list[float] = []
        self.costs: list[float] = []

    async def start(self) -> None:
        """Start the processes."""
        for _ in range(self._processes):
            arguments = {"kind": self._kind, "redis": self._redis, "port": self._port}
            workers = Workers("tests.benchmarks.serving:serve", processes=1, arguments=arguments)
            self._workers.append(await self._stack.enter_async_context(workers))
            (self._port,) = await workers.receive()

    async def load(self, count: int, *, counted: bool = True) -> None:
        """Send requests, and record throughput and processor time."""
        before = await self._processor()
        rate = await loaded(self._port, REQUEST, count=count, connections=CONNECTIONS)
        cost = (await self._processor() - before) / count * 1e6
        if counted:
            self.rates.append(rate)
            self.costs.append(cost)

    async def _processor(self) -> float:
        used = 0.0
        for workers in self._workers:
            await workers.send("processor")
            used += sum(await workers.receive())
        return used


async def by_workers(processes: int, plan: Plan) -> list[Row]:
    """Load each application in each round, so that noise of the machine affects all of them."""
    async with AsyncExitStack() as stack:
        up, frozen, killed = (stack.enter_context(RedisServer()) for _ in range(3))
        ours = partial(Served, OURS, processes, stack=stack)
        servers = {
            BARE: Served(BARE, processes, stack=stack),
            OURS: ours(redis=up.url),
            FROZEN: ours(redis=frozen.url),
            KILLED: ours(redis=killed.url),
            LEAST: Served(LEAST, processes, stack=stack),
            STARLETTE: Served(STARLETTE, processes, stack=stack),
        }
        for server in servers.values():
            await server.start()
            await server.load(CONNECTIONS * 10, counted=False)
        frozen.freeze()
        stack.callback(frozen.thaw)
        killed.kill()
        for number in range(plan.of(ROUNDS) + 1):
            for name in list(servers)[:: 1 if number % 2 else -1]:
                await servers[name].load(REQUESTS, counted=number > 0)
    setup = f"uvicorn, {processes} {'process' if processes == 1 else 'processes'}"
    bare = servers.pop(BARE)
    rates = {name: ratios(server.rates, bare.rates) for name, server in servers.items()}
    costs = {name: ratios(server.costs, bare.costs) for name, server in servers.items()}
    processor = {name: Figure(tuple(server.costs)) for name, server in servers.items()}
    ours_rate = rates.pop(OURS)
    return [
        Row(
            f"throughput of {setup}, of it without",
            "",
            ours_rate,
            rates,
            goal=f">= {GOAL}",
            met=ours_rate.median >= GOAL / plan.slack,
            notes=(f"without any: {statistics.median(bare.rates):.0f} requests a second",),
        ),
        Row(f"processor time of {setup}, of it without", "", costs.pop(OURS), costs),
        Row(
            f"processor time of a request, {setup}",
            "us",
            processor.pop(OURS),
            {BARE: Figure(tuple(bare.costs)), **processor},
        ),
    ]


def ratios(figures: list[float], bare: list[float]) -> Figure:
    """Return each round's figure as a fraction of the bare server's."""
    return Figure(tuple(one / other for one, other in zip(figures, bare, strict=True)))
