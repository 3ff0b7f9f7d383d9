"""Memory is bounded, whatever callers send: a small flood against small bounds, with Redis lost in the middle."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from starlette.requests import HTTPConnection

from tests.servers import RedisServer
from tests.soak.flood import Flood
from tests.soak.held import Held, sample
from tests.soak.load import SECRET, SIDE_BY_SIDE, application, serve
from tokenmw import Limits, TokenBroker, TokenMiddleware
from tokenmw.testing import ManualClock

REQUESTS = 1_500  # before, while and after Redis is away
PARTS = 10  # looks at what is held in each of these times
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
LONGEST = 100  # sessions in one pipeline, and more than any of the bounds
FLOOD = 300  # keys


async def test_a_flood_of_everything_leaves_every_container_within_its_bound(private_redis: RedisServer) -> None:
    """Also those that nobody has thought of: all that can be reached is looked at, by no name."""
    most: Counter[str] = Counter()

    async def send(flood: Flood) -> None:
        for _ in range(PARTS):
            await flood.send(REQUESTS // PARTS)
            most.update({name: max(0, held - most[name]) for name, held in flood.held().items()})

    async with Flood(private_redis.url, limits=SMALL, step=0.03, regulars=12) as flood:
        start = sample(0, memory=0)
        await send(flood)
        early = Held(flood.roots, package="tokenmw", outside=flood.outside)
        private_redis.kill()
        await send(flood)
        private_redis.restart()
        await send(flood)
        await flood.shared_again()
        end = sample(flood.served, memory=0)
        late = Held(flood.roots, package="tokenmw", outside=flood.outside)
    # It was a flood: what has a bound was at it, and not above.
    assert {name: bound for name, bound in asdict(SMALL).items() if name in most} == most
    assert {204, 401, 502, 503} == set(flood.statuses)
    assert [] == late.grown_over(LONGEST, since=early)
    # The rarest kind of request left one object each, if it left any.
    assert {} == late.more_of(since=early, than=REQUESTS // 50)
    # Of each connection to the token endpoint both ends are here, and a task that serves it.
    assert end.sockets - start.sockets <= 2 * CONNECTIONS + 2 * SIDE_BY_SIDE
    assert end.tasks - start.tasks <= SIDE_BY_SIDE


async def test_with_authenticate_a_flood_of_wrong_keys_writes_nothing_to_redis(redis_server: RedisServer) -> None:
    """Neither it nor this process remembers a key that was refused, but for a bounded number of digests."""

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
    """Ten seconds' worth at once; the others are served all the same, with an id of their own."""
    limits = Limits(new_sessions=5, command_seconds=2.0)
    async with TokenBroker({}, redis=redis_server.url, secret_key=SECRET, limits=limits, clock=ManualClock()) as broker:
        app = TokenMiddleware(application, broker=broker)
        before = redis_server.command("DBSIZE")
        statuses = {await serve(app, [(b"x-api-key", b"new-%d" % number)]) for number in range(FLOOD)}
        assert {204} == statuses
        assert before + 10 * 5 == redis_server.command("DBSIZE")
        assert FLOOD == broker.status().sessions
