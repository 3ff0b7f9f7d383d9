"""Memory is bounded whatever callers send: a small flood with small bounds, and a Redis outage in the middle."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from dataclasses import asdict

import pytest
from starlette.requests import HTTPConnection

from tests.brokers import session_sync_of
from tests.servers import RedisServer
from tests.soak.flood import Flood
from tests.soak.load import CONCURRENCY, SECRET, application, serve
from tests.soak.reachable import ReachableObjects, sample
from tokenmw import Limits, TokenBroker, TokenMiddleware
from tokenmw.sessions.cache import local_key
from tokenmw.sessions.derive import SessionIds
from tokenmw.testing import ManualClock

REQUESTS = 1_500  # before, during and after the outage of Redis
MEASUREMENTS = 10  # measurements in each of these phases
CONNECTIONS = 8
SMALL = Limits(
    tokens=20,
    sessions=30,
    flights=30,
    rejected=10,
    refused_keys=5,
    authentications=30,
    touches=60,
    command_seconds=2.0,
    connections=CONNECTIONS,
    commands=30,
)
MAX_LENGTH = 100  # sessions in one pipeline, and more than any of the bounds
FLOOD = 300  # keys
ENTRIES = 2_000


async def test_a_flood_of_everything_leaves_every_container_within_its_bound(private_redis: RedisServer) -> None:
    """All containers that can be reached are measured, not a list of known ones."""
    most: Counter[str] = Counter()

    async def send(flood: Flood) -> None:
        for _ in range(MEASUREMENTS):
            await flood.send(REQUESTS // MEASUREMENTS)
            most.update({name: max(0, sizes - most[name]) for name, sizes in flood.sizes().items()})

    async with Flood(private_redis.url, limits=SMALL, step=0.03, regulars=12) as flood:
        start = sample(0, memory=0)
        await send(flood)
        early = ReachableObjects(flood.roots, package="tokenmw", outside=flood.outside)
        private_redis.kill()
        await send(flood)
        private_redis.restart()
        await send(flood)
        await flood.wait_until_shared()
        end = sample(flood.served, memory=0)
        late = ReachableObjects(flood.roots, package="tokenmw", outside=flood.outside)
    # Each bounded part has reached its bound and did not exceed it.
    assert {name: bound for name, bound in asdict(SMALL).items() if name in most} == most
    assert {204, 401, 502, 503} == set(flood.statuses)
    assert [] == late.grown_over(MAX_LENGTH, since=early)
    # If the rarest kind of request leaks an object, there are this many.
    assert {} == late.more_of(since=early, than=REQUESTS // 50)
    # Both ends of each connection to the token endpoint are in this process, and a task that serves it.
    assert end.sockets - start.sockets <= 2 * CONNECTIONS + 2 * CONCURRENCY
    assert end.tasks - start.tasks <= CONCURRENCY


async def test_with_authenticate_a_flood_of_wrong_keys_writes_nothing_to_redis(redis_server: RedisServer) -> None:
    """This process keeps only a bounded number of digests of refused keys."""

    async def caller(_connection: HTTPConnection, key: str) -> object | None:
        return key if key == "right" else None

    limits = Limits(refused_keys=50, command_seconds=2.0)
    clock = ManualClock()
    async with TokenBroker(
        {}, redis=redis_server.url, secret_key=SECRET, authenticate=caller, limits=limits, clock=clock
    ) as broker:
        app = TokenMiddleware(application, broker=broker)
        before = redis_server.command("KEYS", "*")
        statuses = {await serve(app, [(b"x-api-key", b"wrong-%d" % number)]) for number in range(FLOOD)}
        assert {401} == statuses
        assert before == redis_server.command("KEYS", "*")
        assert 0 == broker.status().sessions
        assert 50 == len(broker._data.refused_keys)
        assert 204 == await serve(app, [(b"x-api-key", b"right")])
        assert len(before) + 1 == redis_server.command("DBSIZE")


async def test_without_authenticate_a_flood_writes_as_much_as_new_sessions_allows(redis_server: RedisServer) -> None:
    """Redis gets ten seconds' worth of new sessions; the other keys are served with a local id."""
    limits = Limits(new_sessions=5, command_seconds=2.0)
    async with TokenBroker({}, redis=redis_server.url, secret_key=SECRET, limits=limits, clock=ManualClock()) as broker:
        app = TokenMiddleware(application, broker=broker)
        before = redis_server.command("DBSIZE")
        statuses = {await serve(app, [(b"x-api-key", b"new-%d" % number)]) for number in range(FLOOD)}
        assert {204} == statuses
        assert before + 10 * 5 == redis_server.command("DBSIZE")
        assert FLOOD == broker.status().sessions


@pytest.mark.parametrize("name", ["refused_keys", "rejected", "touches"])
async def test_an_entry_that_callers_can_add_is_small(redis_server: RedisServer, name: str) -> None:
    """Beside the sessions, each map and queue takes at most 500 bytes for an entry, whatever callers send."""
    limits, long = Limits(refused_keys=ENTRIES, rejected=ENTRIES, touches=ENTRIES), "k" * 4_000
    async with TokenBroker({}, redis=redis_server.url, secret_key=SECRET, limits=limits, clock=ManualClock()) as broker:
        data, sync = broker._data, session_sync_of(broker)

        def add(number: int) -> None:
            match name:
                case "refused_keys":
                    data.refused_keys[b"%016d" % number] = None
                case "rejected":
                    data.rejected.add(f"{long}{number}")
                case _:
                    api_key = f"{long}{number}".encode()
                    session = data.sessions.make(api_key, SessionIds.random(), shared=True, redis_key=b"%080d" % number)
                    sync.queue(local_key(api_key), session)

        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(2 * ENTRIES):
                add(number)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert taken < 500 * ENTRIES
