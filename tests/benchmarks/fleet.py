"""What each operation costs Redis in processor time and memory, and what a fleet of 1 000 instances needs of it.

The processor time is the server's own, `used_cpu_user` and `used_cpu_sys` of INFO, so it does not contain that of this
process. Housekeeping of the broker runs meanwhile; its one command in 5 s is within the noise.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.counting import used_memory
from tests.benchmarks.rows import Figure, Plan, Row
from tests.benchmarks.sizing import Costs, Fleet, primaries_needed, primary, steady_loads
from tests.brokers import runtime_of
from tests.servers import RedisServer, require_server, wheel_server
from tokenmw import Limits, TokenBroker
from tokenmw.redis.fleet import FleetStore
from tokenmw.redis.heartbeat import Heartbeat
from tokenmw.redis.session_store import RedisSessionStore
from tokenmw.redis.token_store import Leased, RedisTokenStore, TokenKeys, TokenRecord
from tokenmw.sessions.cache import TOUCHES_PER_TTL
from tokenmw.tokens.sync import RARER_IF_ANNOUNCED

OPERATIONS = 4_000
BATCH = 100  # tokens or sessions in one pipeline, as housekeeping sends them
UPLOADS = 32  # sessions in one pipeline of uploads
SIGHTS = 32  # API keys in one batch, as `sessions.first_sight` sends them
LISTENERS = 50
CHECK_ROUNDS = 5
TTL = 3600.0
SECRET = "a secret for this run"

LARGE = Fleet(
    instances=1_000,
    sessions=100_000,
    distinct_sessions=100_000,
    tenants=10_000,
    session_ttl=TTL,
    touches_per_ttl=TOUCHES_PER_TTL,
    check_seconds=Limits().check_seconds * RARER_IF_ANNOUNCED,
    token_seconds=7200.0,
    connections=Limits().connections + 1,  # one listens for what other processes announce
)
CORES, CONNECTIONS, HEALING = 1.0, 4_000, 30.0  # the goals, for one primary
BYTES = 150  # the goal, for a session
# A key and a value that take less memory than those of a session in Redis 7.0: each has a header of 3 bytes and a zero
# in 48 bytes, not in 64, and a value that short is in one allocation with its object.
SHORT_KEY = SHORT_VALUE = 44

Operation = Callable[[], Awaitable[object]]


async def run(plan: Plan) -> list[Row]:
    """Measure each server that is installed, and add up a large fleet on it."""
    rows: list[Row] = []
    for executable in sorted({require_server(), wheel_server() or require_server()}):
        costs = await costs_of(executable, plan)
        rows += rows_of(costs, server=executable.name)
        rows.append(await memory_of_a_session(executable))
    return rows


def rows_of(costs: Costs, *, server: str) -> list[Row]:
    """Return the cost of each operation, and the totals of the large fleet beside their goals."""
    one = primary(LARGE, costs)
    apart = primary(replace(LARGE, distinct_sessions=LARGE.instances * LARGE.sessions), costs)
    loads = ", ".join(
        f"{load.operation} {load.per_second:,.0f}/s = {load.cores:.2f}" for load in steady_loads(LARGE, costs)
    )
    needed = primaries_needed(one, cores=CORES, healing_seconds=HEALING)
    fleet = f"{LARGE.instances} instances x {LARGE.sessions} sessions x {LARGE.tenants} tenants, {server}"
    each = [
        Row(f"{server}'s processor time of one operation: {name}", "us", Figure((microseconds,)))
        for name, microseconds in costs.microseconds.items()
    ]
    return [
        *each,
        Row(f"{server}'s memory of a token", "bytes", Figure((costs.token_bytes,))),
        Row(f"{server}'s memory of a session", "bytes", Figure((costs.session_bytes,))),
        Row(f"commands a second, {fleet}", "", Figure((one.commands,))),
        Row(
            f"cores, {fleet}",
            "",
            Figure((one.cores,)),
            goal=f"< {CORES:g}",
            met=one.cores < CORES,
            notes=(loads, f"primaries for that and for healing in {HEALING:g} s: {needed}"),
        ),
        Row(
            f"connections at most, {fleet}",
            "",
            Figure((one.connections,)),
            goal=f"<= {CONNECTIONS}",
            met=one.connections <= CONNECTIONS,
        ),
        Row(
            f"healing, {fleet}",
            "s of one core",
            Figure((one.healing_seconds,)),
            goal=f"<= {HEALING:g}",
            met=one.healing_seconds <= HEALING,
        ),
        Row(f"first sights after all have restarted, {fleet}", "s of one core", Figure((one.deploy_seconds,))),
        Row(
            f"memory, {fleet}",
            "GB",
            Figure((one.gigabytes,)),
            notes=(f"{apart.gigabytes:.1f} GB if no two instances share a session",),
        ),
    ]


async def memory_of_a_session(executable: Path) -> Row:
    """Return what `MEMORY USAGE` says of a session, and of bare keys and values beside it."""
    with RedisServer(executable=executable) as server:

        def usage(key: bytes) -> Figure:
            return Figure((float(server.command("MEMORY", "USAGE", key)),))

        async with stores(server) as (_, sessions, _):
            key = sessions.key(b"sk")
            await sessions.get_or_create([(key, "0f8f0f8f-0f8f-4f8f-8f8f-0f8f0f8f0f8f")])
        lengths: tuple[int, int] = len(key), len(server.command("GET", key))
        bare: dict[str, Figure] = {}
        for key_length, value_length in (lengths, (SHORT_KEY, lengths[1]), (SHORT_KEY, SHORT_VALUE)):
            server.command("SET", "k" * key_length, "v" * value_length, "PX", 60_000)
            bare[f"a key of {key_length} and a value of {value_length} bytes"] = usage(b"k" * key_length)
        ours = usage(key)
    name = f"{executable.name}'s MEMORY USAGE of a sealed session"
    return Row(name, "bytes", ours, bare, f"<= {BYTES}", ours.median <= BYTES)


async def costs_of(executable: Path, plan: Plan) -> Costs:
    """Measure all operations on one server."""
    count = plan.of(OPERATIONS)
    with RedisServer(executable=executable) as server:
        async with stores(server) as (tokens, sessions, keys_of):
            microseconds = await costs_of_tokens(server, tokens, keys_of, count)
            token_bytes = float(server.command("MEMORY", "USAGE", keys_of(0).token))
            server.command("FLUSHALL", "SYNC")
            before = used_memory(server)
            microseconds |= await costs_of_sessions(server, sessions, count)
            # Not MEMORY USAGE: it leaves out the entries of the server's two tables, of all keys and of their TTLs.
            session_bytes = (used_memory(server) - before) / count
        microseconds |= await costs_of_heartbeats(server, count)
        microseconds["announcement"] = cost_of_an_announcement(server, count)
    return Costs(microseconds, token_bytes, session_bytes)


@asynccontextmanager
async def stores(
    server: RedisServer,
) -> AsyncGenerator[tuple[RedisTokenStore, RedisSessionStore, Callable[[int], TokenKeys]]]:
    """Yield the stores of a broker, and a function that returns the keys of a numbered token."""
    limits = Limits(command_seconds=5.0)
    async with TokenBroker({}, redis=server.url, secret_key=SECRET, limits=limits, session_ttl=TTL) as broker:
        settings, redis = broker._settings, runtime_of(broker).redis
        assert redis is not None

        def unreadable(kind: str, reason: str) -> None:
            raise AssertionError(f"{kind}: {reason}")

        names, sealer, after_reset = settings.names, settings.sealer, settings.session_ids.after_reset
        yield (
            RedisTokenStore(redis, sealer=sealer, on_unreadable=unreadable),
            RedisSessionStore(
                redis, names=names, sealer=sealer, ttl=TTL, on_unreadable=unreadable, after_reset=after_reset
            ),
            lambda number: TokenKeys.of(names, names.digest("token", number)),
        )


async def costs_of_tokens(
    server: RedisServer, store: RedisTokenStore, keys_of: Callable[[int], TokenKeys], count: int
) -> dict[str, float]:
    """Fetch, store, compare and invalidate numbered tokens, and return the microseconds of each."""
    record = TokenRecord("t" * 43, "Bearer", 7200.0, None, {})
    owner, leases = secrets.token_hex(8), [0] * count

    async def acquire(number: int) -> None:
        lease = await store.acquire(keys_of(number), owner, known=0, seconds=6.0)
        assert isinstance(lease, Leased)
        leases[number] = lease.version

    async def commit(number: int) -> None:
        await store.commit(keys_of(number), owner, record, version=leases[number], left=7200.0)

    async def read(number: int) -> None:
        assert (await store.read(keys_of(number)))[0] is not None

    async def check(first: int) -> None:
        numbers = range(first, min(first + BATCH, count))
        assert all(await store.holds([(keys_of(number), leases[number]) for number in numbers]))

    async def hinted(first: int) -> None:
        numbers = range(first, min(first + BATCH, count))
        assert None not in await store.versions([keys_of(number) for number in numbers])

    async def tombstone(number: int) -> None:
        await store.write_tombstone(keys_of(number), version=leases[number], known=0, left=7200.0)

    found = {
        name: await cost(server, operation, range(count))
        for name, operation in {"acquire": acquire, "commit": commit, "read": read}.items()
    }
    batches = range(0, count, BATCH)
    # The least of several times, because it is what a large fleet does most, and 4 000 of them take a few milliseconds.
    checks = [await cost(server, check, batches) for _ in range(CHECK_ROUNDS)]
    found["check"] = min(checks) * len(batches) / count
    found["check after a hint"] = await cost(server, hinted, batches) * len(batches) / count
    # The first token stays, for MEMORY USAGE.
    return found | {"tombstone": await cost(server, tombstone, range(1, count))}


async def costs_of_sessions(server: RedisServer, store: RedisSessionStore, count: int) -> dict[str, float]:
    """Look up, touch and upload numbered sessions in batches, and return the microseconds of each."""
    ids = [f"0f8f0f8f-0f8f-4f8f-8f8f-{number:012x}" for number in range(count)]
    keys = [store.key(b"sk-%d" % number) for number in range(count)]

    async def sights(first: int) -> None:
        await store.get_or_create(list(zip(keys[first : first + SIGHTS], ids[first : first + SIGHTS], strict=True)))

    async def touch(first: int) -> None:
        await store.touch(keys[first : first + BATCH])

    async def upload(first: int) -> None:
        part = zip(keys[first : first + UPLOADS], ids[first : first + UPLOADS], itertools.repeat(0.0), strict=False)
        await store.upload(list(part))

    async def read(first: int) -> None:
        await store.read(keys[first : first + BATCH])

    one_by_one = [store.key(b"one-%d" % number) for number in range(count)]

    async def alone(number: int) -> None:
        await store.get_or_create([(one_by_one[number], ids[number])])

    per_sight, per_batch = range(0, count, SIGHTS), range(0, count, BATCH)
    per_upload = range(0, count, UPLOADS)
    measured = {
        "first sight alone": await cost(server, alone, range(count)),
        "first sight, new": await cost(server, sights, per_sight) * len(per_sight) / count,
        "first sight, known": await cost(server, sights, per_sight) * len(per_sight) / count,
        "touch": await cost(server, touch, per_batch) * len(per_batch) / count,
    }
    server.command("FLUSHALL", "SYNC")
    measured["upload"] = await cost(server, upload, per_upload) * len(per_upload) / count
    measured["session read"] = await cost(server, read, per_batch) * len(per_batch) / count
    measured["epoch"] = await cost_of_epochs(server, count)
    return measured


async def cost_of_epochs(server: RedisServer, count: int) -> float:
    """Return the microseconds of one read of the epoch marker."""
    limits = Limits(command_seconds=5.0)
    async with TokenBroker({}, redis=server.url, secret_key=SECRET, limits=limits) as broker:
        redis = runtime_of(broker).redis
        assert redis is not None
        (key,) = redis.epoch_keys
        keys, args = (key, key.replace(b":marker", b":silent")), (secrets.token_hex(8), 1)
        return await cost(server, lambda _number: redis.run("marker", keys, args), range(count))


async def costs_of_heartbeats(server: RedisServer, count: int) -> dict[str, float]:
    """Return the microseconds of writing one of 1 000 heartbeats, and of reading all of them."""
    server.command("FLUSHALL", "SYNC")
    limits = Limits(command_seconds=5.0)
    tokens = {f"{number:08}": 1_795_857_247_123_456 + number for number in range(4)}
    counts = {"tokens": 10_000, "sessions": 100_000, "unshared": 0, "failing": 3}
    said = Heartbeat(
        host="web-12.prod.example",
        pid=12345,
        version="1.0.0",
        started_at=1_795_857_247.8,
        shared="up",
        shared_seconds=1234.5,
        tokens=tokens,
        counts=counts,
    )
    async with TokenBroker({}, redis=server.url, secret_key=SECRET, limits=limits) as broker:
        redis, settings = runtime_of(broker).redis, broker._settings
        assert redis is not None
        stores = [FleetStore(redis, names=settings.names, sealer=settings.sealer) for _ in range(LARGE.instances)]

        async def write(number: int) -> None:
            assert await stores[number % len(stores)].write(said)

        async def read(_number: int) -> None:
            assert len(await stores[0].read()) >= len(stores)

        for number in range(len(stores)):
            await write(number)
        return {
            "heartbeat": await cost(server, write, range(count)),
            "heartbeats of 1 000 instances, read": await cost(server, read, range(16)),
        }


def cost_of_an_announcement(server: RedisServer, count: int) -> float:
    """Return the microseconds that Redis takes to announce a change to one listener, of many."""
    listeners = [server.connect() for _ in range(LISTENERS)]
    for listener in listeners:
        listener.call("SUBSCRIBE", "hints")
    before = processor(server)
    with server.connect() as connection:
        for _ in range(count // LISTENERS + 1):
            assert connection.call("PUBLISH", "hints", "x" * 43) == LISTENERS
    used = processor(server) - before
    for listener in listeners:
        listener.close()
    return used / ((count // LISTENERS + 1) * LISTENERS) * 1e6


async def cost(server: RedisServer, operation: Callable[[int], Awaitable[object]], numbers: range) -> float:
    """Return the microseconds of the server's processor time for one call: the least of four parts.

    Other programs on this machine make the same work take longer, also by the server's own count.
    """
    found: list[float] = []
    for part in range(4):
        some, before = numbers[part::4], processor(server)
        for number in some:
            await operation(number)
        found.append((processor(server) - before) / len(some) * 1e6)
    return min(found)


def processor(server: RedisServer) -> float:
    """Return the seconds of processor time that a server has used."""
    lines = bytes(server.command("INFO", "cpu")).decode().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])
