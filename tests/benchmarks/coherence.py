"""How long other processes use an invalidated token: 8 processes under load, 200 invalidations, with and without hints.

A delay is the time from the call that invalidates, in one process, to the moment at which another one drops the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import statistics
import time
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

from redis.asyncio.sentinel import Sentinel

from tests.benchmarks.rows import Figure, Plan, Row
from tests.faults.test_failover import Cluster, sentinel_of, until
from tests.processes import Workers, receive, send
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.observe.events import TokenInvalidated
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PROCESSES, TOKENS = 8, 200
SPACING = 0.05  # seconds between two invalidations
GOAL, LIMIT = 100.0, 1000.0  # ms: of the 99th percentile, and of all
CHECK = 30.0  # seconds: the default of `Limits(check_seconds=…)`
KILLED_EVERY = 5  # invalidations, in the round in which the listeners' connections are cut


async def run(plan: Plan) -> list[Row]:
    """Measure on a single server with and without hints, in a Sentinel's group and in a cluster."""
    rows: list[Row] = []
    tokens = plan.of(TOKENS)
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        with_hints = await delays(tokens, url=server.url)
        server.command("FLUSHALL")
        cut = await delays(tokens, kill=server, url=server.url)
        server.command("FLUSHALL")
        without = await delays(tokens, hints=False, url=server.url)
        goal = f"p99 <= {GOAL:g} ms, none after {LIMIT:g}"
        rows += [
            row("a single server", with_hints, goal=goal, met=_met(with_hints, plan)),
            row("listeners cut every 0.25 s", cut, goal="all <= 2000 ms", met=max(cut) <= 2000 * plan.slack),
            row("without hints", without),
        ]
    if plan.size < 1:
        return rows
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer())
        replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(primary.port)))
        sentinel = stack.enter_context(sentinel_of(primary))
        await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        found = await delays(tokens, sentinel_port=sentinel.port)
        rows.append(row("Sentinel", found, goal=goal, met=_met(found, plan)))
    with ExitStack() as stack:
        cluster = Cluster(stack)
        await cluster.meet()
        found = await delays(tokens, url=cluster.url)
        rows.append(row("a cluster of three primaries", found, goal=goal, met=_met(found, plan)))
    return rows


def row(name: str, found: list[float], *, goal: str = "", met: bool | None = None) -> Row:
    """Return the row of these delays."""
    p99 = statistics.quantiles(found, n=100)[98]
    note = f"min {min(found):.1f}, median {statistics.median(found):.1f}, p99 {p99:.1f}, max {max(found):.1f} ms"
    return Row(
        f"invalidated token used by {PROCESSES - 1} other processes, {name}",
        "ms",
        Figure(tuple(found)),
        goal=goal,
        met=met,
        notes=(f"{note}, of {len(found)}",),
    )


def _met(found: list[float], plan: Plan) -> bool:
    return statistics.quantiles(found, n=100)[98] <= GOAL * plan.slack and max(found) <= LIMIT * plan.slack


async def delays(tokens: int, *, kill: RedisServer | None = None, **options: Any) -> list[float]:
    """Invalidate each token once in the first process; return the delays of all others in milliseconds."""
    arguments = {"tokens": tokens, **options}
    async with Workers(f"{__name__}:serve", processes=PROCESSES, arguments=arguments, within=180) as workers:
        await workers.receive()
        await workers.send("go")
        await workers.receive()
        invalidated: dict[str, float] = {}
        for number in range(tokens):
            if kill is not None and number % KILLED_EVERY == 0:
                kill.command("CLIENT", "KILL", "TYPE", "pubsub")
            await workers[0].send(f"p{number}")
            invalidated[f"p{number}"] = await workers[0].receive()
            await asyncio.sleep(SPACING)
        await asyncio.sleep(CHECK + 6 if options.get("hints") is False else 2.5)
        await workers.send(None)
        _, *others = await workers.results()
    return [(other[name] - began) * 1000 for other in others for name, began in invalidated.items()]


async def serve(*, tokens: int, hints: bool = True, url: str = "", sentinel_port: int = 0) -> dict[str, float]:
    """Use all tokens; invalidate those that the parent names. Return when each was first dropped."""
    dropped: dict[str, float] = {}

    def observe(event: object) -> None:
        if isinstance(event, TokenInvalidated):
            dropped.setdefault(event.provider, time.monotonic())

    providers = {
        f"p{n}": StaticToken(lambda: secrets.token_urlsafe(32), credential_id=f"c{n}")  # a new one for each fetch
        for n in range(tokens)
    }
    async with AsyncExitStack() as stack:
        redis: Any = url or await stack.enter_async_context(behind_sentinel(sentinel_port))
        broker = TokenBroker(
            providers,
            redis=redis,
            secret_key="a secret for the tests only",
            observers=[observe],
            limits=Limits(command_seconds=1.0),
            hints=hints,
        )
        await stack.enter_async_context(broker)
        for name in providers:
            await broker.token(name)
        load = asyncio.create_task(use(broker, list(providers)))
        await asyncio.sleep(0.5)
        send("ready")
        await asyncio.to_thread(receive)
        dropped.clear()
        send("listening")
        while (name := await asyncio.to_thread(receive)) is not None:
            began = time.monotonic()
            await broker.invalidate_provider(name)
            send(began)
        load.cancel()
        await asyncio.wait([load])
    return dropped


async def use(broker: TokenBroker, names: list[str]) -> None:
    """Make 10 requests each 10 ms, each of a random token and session."""
    while True:
        for name in random.choices(names, k=10):
            await broker.token(name)
            await broker.session_id(f"key-{name}")
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def behind_sentinel(port: int) -> AsyncGenerator[Any]:
    """Return a client of `master_for`."""
    constructor: Any = Sentinel  # it has no types
    sentinel = constructor([("127.0.0.1", port)])
    client = sentinel.master_for("main", socket_timeout=1.0)
    try:
        yield client
    finally:
        await client.aclose()
        for connected in sentinel.sentinels:
            await connected.aclose()
