"""Several processes behind a load balancer that chooses one at random, while Redis is unavailable and afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker

pytestmark = pytest.mark.campaign

SECRET = "a-secret-of-some-length"
PROCESSES, KEYS = 4, 120
LIMITS = Limits(command_seconds=1.0)  # the machine that runs the tests may be slow, and this is not about the deadline


class Fleet:
    """Brokers behind a load balancer, and the ids that each key got from them, repeated ones once."""

    def __init__(self, brokers: list[TokenBroker]) -> None:
        self.brokers = brokers
        self._random = random.Random(12)
        self.seen: dict[str, list[str]] = {}

    async def request(self, key: str, broker: TokenBroker | None = None) -> None:
        """Send one request, to any broker by default."""
        session = await (broker or self._random.choice(self.brokers)).session_id(key)
        ids = self.seen.setdefault(key, [])
        if ids[-1:] != [session]:
            ids.append(session)

    async def rounds(self, count: int, *, keys: int = KEYS) -> None:
        """Send one request for each key in each round."""
        for _ in range(count):
            for number in range(keys):
                await self.request(f"sk-{number}")

    async def until(self, shared: str, *, down: Callable[[str], bool]) -> None:
        """Wait until all brokers report a state of Redis, and send requests meanwhile."""
        async with asyncio.timeout(30.0):
            while any(down(broker.status().shared) for broker in self.brokers):
                await self.rounds(1)
                await asyncio.sleep(0.05)
        assert {shared} == {broker.status().shared for broker in self.brokers}

    @property
    def alternated(self) -> int:
        """How many keys had more than one id."""
        return sum(len(ids) > 1 for ids in self.seen.values())

    @property
    def flips(self) -> int:
        """How often a request got another id than the one before it with the same key."""
        return sum(len(ids) - 1 for ids in self.seen.values())


async def through_an_outage(server: RedisServer, fleet: Fleet, *, empty: bool) -> None:
    """Make half of the keys known to some brokers, kill Redis for a while, and let all be shared again.

    With `empty`, Redis comes back without its data.
    """
    for number in range(0, KEYS, 2):
        for _ in range(number % 5):
            await fleet.request(f"sk-{number}")
    if empty:
        server.kill()
    else:
        server.freeze()
    await fleet.until("down", down=lambda shared: shared != "down")
    await fleet.rounds(20)
    if empty:
        server.restart()
    else:
        server.thaw()
    await fleet.until("up", down=lambda shared: shared != "up")
    async with asyncio.timeout(30.0):
        while any(broker.status().touches for broker in fleet.brokers):
            await fleet.rounds(1)
            await asyncio.sleep(0.05)
    await fleet.rounds(3)


@pytest.mark.parametrize(
    ("options", "empty"),
    [({}, True), ({}, False), ({"namespace": "crm"}, True), ({"seal": False}, True)],
    ids=["killed", "frozen", "namespace", "unsealed"],
)
async def test_no_key_has_two_ids(private_redis: RedisServer, options: dict[str, Any], *, empty: bool) -> None:
    """Keys that no, some or all processes know keep their ids when Redis fails, meanwhile and after it is back."""
    async with AsyncExitStack() as stack:
        fleet = await fleet_of(stack, private_redis, **options)
        await through_an_outage(private_redis, fleet, empty=empty)
        assert KEYS == len(fleet.seen)
        assert (0, 0) == (fleet.alternated, fleet.flips)
        other = TokenBroker({}, redis=private_redis.url, secret_key=SECRET, limits=LIMITS, **options)
        later = await stack.enter_async_context(other)
        for key in fleet.seen:
            await fleet.request(key, later)
        assert 0 == fleet.alternated


async def test_random_ids_alternate(private_redis: RedisServer) -> None:
    """That is what `session_ids="random"` costs: processes that do not know a key derive another id."""
    async with AsyncExitStack() as stack:
        fleet = await fleet_of(stack, private_redis, session_ids="random")
        await through_an_outage(private_redis, fleet, empty=True)
        assert KEYS // 8 < fleet.alternated <= KEYS // 2
        assert fleet.flips > 4 * fleet.alternated
        async with asyncio.timeout(30.0):
            while fleet.alternated:  # until each process has compared its ids with Redis
                fleet.seen.clear()
                await fleet.rounds(3)
                await asyncio.sleep(0.05)


async def fleet_of(stack: AsyncExitStack, server: RedisServer, **options: Any) -> Fleet:
    """Open brokers on one Redis, as processes do."""
    brokers = [TokenBroker({}, redis=server.url, secret_key=SECRET, limits=LIMITS, **options) for _ in range(PROCESSES)]
    return Fleet([await stack.enter_async_context(broker) for broker in brokers])
