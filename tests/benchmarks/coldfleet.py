"""A fleet that starts: processes that see the same keys and want the same token first, at once or by turns.

Redis counts the connections by the name that each process gives to its own. The listener's is counted apart.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.benchmarks.coldfleet_worker import CALLERS, KEYS, SECRET
from tests.benchmarks.rows import Figure, Plan, Row
from tests.processes import Workers
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.testing import ProviderServer

__all__ = ["CALLERS", "KEYS", "Started", "start_fleet"]

SIZES = (8, 40)
TURNS, IN_A_TURN = 10, 10
DELAY = 0.2  # seconds that the token server takes
GOAL = Limits().connections + 1  # with the listener's
TENANTS = 900  # Limits(commands=…) are 1 000


@dataclass
class Started:
    """What the start of a fleet has caused.

    Attributes:
        fetches: Requests to the token server.
        two_ids: Keys that had different ids in two processes.
        before: The most connections that a process had before it served, with that of its listener.
        most: The most connections that a process has had, with that of its listener.
        slowest: Seconds that the slowest caller waited.
        tokens: The different tokens that callers got.
    """

    fetches: int = 0
    before: int = 0
    most: int = 0
    slowest: float = 0.0
    tokens: set[str] = field(default_factory=set[str])
    ids: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    @property
    def two_ids(self) -> int:
        """How many keys had different ids in two processes."""
        return sum(len(ids) > 1 for ids in self.ids.values())


async def run(plan: Plan) -> list[Row]:
    """Start 8 and 40 processes at once, and 100 by turns; then use 900 tokens at once in one process."""
    rows: list[Row] = []
    for processes in SIZES if plan.size >= 1 else SIZES[:1]:
        rows += rows_of(f"{processes} processes at once", [await start_fleet(processes) for _ in range(3)])
    if plan.size >= 1:
        rows += rows_of(f"{TURNS * IN_A_TURN} processes by turns", [await start_fleet(IN_A_TURN, turns=TURNS)])
    return [*rows, *await tenants_at_once(plan)]


def rows_of(name: str, rounds: list[Started]) -> list[Row]:
    """Return the rows of some starts of the same fleet."""

    def figure(attribute: str) -> Figure:
        return Figure(tuple(float(getattr(started, attribute)) for started in rounds))

    fetches, two_ids, most = figure("fetches"), figure("two_ids"), figure("most")
    return [
        Row(f"fetches, {name}", "", fetches, goal="1", met=set(fetches.rounds) == {1.0}),
        Row(f"keys with two ids, of {KEYS}, {name}", "", two_ids, goal="0", met=set(two_ids.rounds) == {0.0}),
        Row(f"connections of a process, {name}", "", most, goal=f"<= {GOAL}", met=max(most.rounds) <= GOAL),
        Row(f"connections of a process before it serves, {name}", "", figure("before")),
        Row(f"the slowest of {CALLERS} callers and {KEYS} new keys in each process, {name}", "s", figure("slowest")),
    ]


async def start_fleet(processes: int, *, turns: int = 1) -> Started:
    """Start processes with as many callers and new keys, all at once in each turn."""
    found, server = Started(), ProviderServer(delay=DELAY)
    with RedisServer() as redis, server.running() as base_url:
        for _ in range(turns):
            arguments = {"redis": redis.url, "base_url": base_url}
            async with Workers(
                f"{__name__}_worker:serve", processes=processes, arguments=arguments, within=180
            ) as workers:
                await workers.receive()
                found.before = max(found.before, *connections(redis).values())
                await workers.send("go")
                for seen in await workers.receive():
                    found.slowest = max(found.slowest, seen["slowest"])
                    found.tokens.update(seen["tokens"])
                    for key, session_id in seen["ids"].items():
                        found.ids.setdefault(key, set()).add(session_id)
                found.most = max(found.most, *connections(redis).values())
                await workers.send("stop")
                await workers.results()
    found.fetches = server.calls["oauth2"]
    return found


def connections(redis: RedisServer) -> Counter[str]:
    """Return how many connections each process has, by its name."""
    lines = bytes(redis.command("CLIENT", "LIST")).decode().splitlines()
    names = (fact.removeprefix("name=") for line in lines for fact in line.split() if fact.startswith("name="))
    return Counter(name for name in names if name)


async def tenants_at_once(plan: Plan) -> list[Row]:
    """Use many tokens that another process has stored for the first time, at once, with few and many connections."""
    count, few = plan.of(TENANTS), Limits().connections
    crms = [StaticToken(lambda: secrets.token_urlsafe(32), credential_id=f"c{n}") for n in range(count)]
    with RedisServer() as redis:

        def broker_of(connections: int) -> TokenBroker:
            limits = Limits(connections=connections)
            return TokenBroker({}, redis=redis.url, secret_key=SECRET, limits=limits)

        async def use(connections: int) -> float:
            async with broker_of(connections) as broker:
                began = time.perf_counter()
                await asyncio.gather(*map(broker.token, crms))
                return (time.perf_counter() - began) * 1e3

        await use(few)
        found: dict[int, list[float]] = {few: [], 32: []}
        for _ in range(min(3, plan.rounds)):
            for number, times in found.items():
                times.append(await use(number))
    name = f"{count} tokens that another process has stored, at once"
    return [Row(name, "ms", Figure(tuple(found[few])), {"with 32 connections": Figure(tuple(found[32]))})]
