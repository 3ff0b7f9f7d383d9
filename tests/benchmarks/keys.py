"""Many API keys: time per request, memory here and in Redis, its bound, and the cost of touches."""

from __future__ import annotations

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from tests.benchmarks.asgi import HEADERS, application, scope_of
from tests.benchmarks.counting import calls, reads, used_memory
from tests.benchmarks.lookups import Lookup, lookups, per_entry
from tests.benchmarks.rows import Figure, Plan, Row, best_of, interleaved
from tests.brokers import runtime_of, session_sync_of
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker, TokenMiddleware
from tokenmw.providers import StaticToken
from tokenmw.sessions.cache import TOUCHES_PER_TTL
from tokenmw.testing import ManualClock

COUNTS = (10_000, 100_000, 1_000_000)
# Batches shorter than a time slice of a busy machine: the best of them was not interrupted.
REQUESTS, BATCHES = 500, 20
GOAL = 1.3
MEASURED = 10_000  # keys, for bytes per entry
TTL = 3600.0
SECRET = "a secret for this run"


async def run(plan: Plan) -> list[Row]:
    """Measure brokers with increasing numbers of known keys."""
    return [*await by_count(plan), *await here(), *await in_redis(plan)]


async def by_count(plan: Plan) -> list[Row]:
    """Compare brokers, and the quickest other lookups, with few keys and with many."""
    counts = [plan.of(count) for count in COUNTS]
    least, most = counts[0], counts[-1]
    async with AsyncExitStack() as stack:
        found: dict[tuple[str, int], Lookup] = {}
        notes: tuple[str, ...] = ()
        pauses = [full_pass()]
        for count in counts:
            found["tokenmw", count] = await known(count, stack=stack)
            pauses.append(full_pass())
        for count in (least, most):
            others, notes = await lookups(key, count, stack=stack)
            found |= {(name, count): lookup for name, lookup in others.items()}
        measured = await interleaved(
            {
                f"{name} {count}": best_of(partial(rounds_of, lookup, count), batches=BATCHES)
                for (name, count), lookup in found.items()
            },
            rounds=plan.rounds,
        )
    figures = {pair: measured[f"{pair[0]} {pair[1]}"] for pair in found}
    ours, few = figures["tokenmw", most], figures["tokenmw", least]
    grown = {
        name: Figure(tuple(many - one for many, one in zip(figure.rounds, figures[name, least].rounds, strict=True)))
        for (name, count), figure in figures.items()
        if count == most
    }
    return [
        Row(
            f"request, any of {most} API keys",
            "us",
            ours,
            {f"any of {count}": figures["tokenmw", count] for count in counts[:-1]},
            goal=f"<= {GOAL} of {least} keys",
            met=ours.median <= plan.slack * GOAL * few.median,
        ),
        Row(
            f"what a request costs more with {most} API keys than with {least}",
            "us",
            grown.pop("tokenmw"),
            {f"one lookup, {name}": figure for name, figure in grown.items()},
            notes=notes,
        ),
        Row(
            f"what a full garbage collection costs more with {most} API keys",
            "ms",
            Figure((pauses[-1] - pauses[-2],)),
        ),
    ]


def full_pass() -> float:
    """Return the milliseconds of a full collection."""
    gc.collect()
    began = time.thread_time()
    gc.collect()
    return (time.thread_time() - began) * 1e3


def key(number: int) -> bytes:
    """Return one of many API keys."""
    return b"sk-%024d" % number


async def known(count: int, *, stack: AsyncExitStack) -> Lookup:
    """Open a broker with `count` known keys; return a function that measures requests with given keys."""
    broker = await stack.enter_async_context(TokenBroker({"crm": StaticToken("t")}, limits=Limits(sessions=count)))
    for number in range(count):
        await broker.session_id(key(number))
    assert len(broker._data.sessions) == count
    wrapped = TokenMiddleware(application, broker=broker, inject=["crm"])

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(_message: object) -> None:
        pass

    others = [header for header in HEADERS if header[0] != b"authorization"]

    async def requests(keys: Sequence[bytes]) -> float:
        headers = [[*others, (b"authorization", b"Bearer " + one)] for one in keys]
        began = time.thread_time()
        for received in headers:
            await wrapped(scope_of(received), receive, send)
        return (time.thread_time() - began) / len(keys) * 1e6

    return requests


async def rounds_of(lookup: Lookup, count: int) -> float:
    """Look up random keys. Each is a new object, as in a server, so its hash is not cached."""
    return await lookup([key(random.randrange(count)) for _ in range(REQUESTS)])


async def here() -> list[Row]:
    """Measure the local memory of a key, also after many other keys were evicted."""
    async with TokenBroker({}, limits=Limits(sessions=MEASURED)) as broker:
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(MEASURED):
            await broker.session_id(key(number))
        gc.collect()
        full = (tracemalloc.get_traced_memory()[0] - before) / MEASURED
        for number in range(MEASURED, 10 * MEASURED):
            await broker.session_id(key(number))
        gc.collect()
        later = (tracemalloc.get_traced_memory()[0] - before) / MEASURED
        tracemalloc.stop()
        assert len(broker._data.sessions) == MEASURED
    peers = {name: Figure((taken,)) for name, taken in per_entry(key, MEASURED).items()}
    return [
        Row("local memory of an API key", "bytes", Figure((full,)), peers),
        Row(
            f"local memory after {10 * MEASURED} keys of which {MEASURED} may stay",
            "bytes a key",
            Figure((later,)),
            goal="<= 1.2 of the above",
            met=later <= 1.2 * full,
        ),
    ]


async def in_redis(plan: Plan) -> list[Row]:
    """Measure the memory of keys in Redis, and the commands that keep them alive for a quarter of their TTL."""
    count, clock = plan.of(MEASURED), ManualClock()
    limits = Limits(new_sessions=1_000_000, command_seconds=5.0)
    with RedisServer() as server:
        before = used_memory(server)
        async with TokenBroker(
            {}, redis=server.url, secret_key=SECRET, session_ttl=TTL, limits=limits, clock=clock
        ) as broker:
            for number in range(count):
                await broker.session_id(key(number))
            name = next(name for name in server.command("KEYS", "*:session"))
            one = float(server.command("MEMORY", "USAGE", name))
            all_of_them = (used_memory(server) - before) / count
            for _ in range(30):  # until the uploads after the start are over
                await clock.elapse(1.0)
                await asyncio.sleep(0.02)
            server.command("CONFIG", "RESETSTAT")
            asked, processor = reads(server), await kept_alive(broker, clock, count)
            trips, commands = reads(server) - asked, calls(server).get("getex", 0)
    seconds = TTL / TOUCHES_PER_TTL
    return [
        Row("Redis memory of an API key, sealed (MEMORY USAGE)", "bytes", Figure((one,))),
        Row(f"the same, of what the server takes for {count}", "bytes", Figure((all_of_them,))),
        Row(
            f"touches a second that keep {count} keys in use alive for {TTL:.0f} s",
            "commands/s",
            Figure((commands / seconds,)),
            goal=f"<= {count / seconds:.1f}: one for each key and quarter",
            met=0 < commands <= count,
            notes=(
                f"in {trips / seconds:.2f} round trips a second; {processor / commands * 1e6:.0f} us of our time each",
            ),
        ),
    ]


async def kept_alive(broker: TokenBroker, clock: ManualClock, count: int) -> float:
    """Use all keys for a quarter of their TTL, until they are touched; return processor seconds."""
    sessions, touches = runtime_of(broker).sessions, session_sync_of(broker)
    taken = 0.0
    for _ in range(int(TTL / TOUCHES_PER_TTL)):
        for number in range(count):
            assert sessions.cached(key(number))
        began = time.process_time()
        await clock.elapse(1.0)
        while touches.touches:
            await clock.elapse(1.0)
            await asyncio.sleep(0.01)
        taken += time.process_time() - began
    return taken
