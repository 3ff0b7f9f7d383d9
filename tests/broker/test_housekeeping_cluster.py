"""An unavailable primary of a cluster does not prevent housekeeping from using the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import passes
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_cluster_urls
OPTIONS = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "60000")
TOKENS = 120
"""On each server more than housekeeping compares at the same time."""


@pytest.fixture
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """Run two primaries with half of the slots each."""
    with RedisServer(*OPTIONS) as low, RedisServer(*OPTIONS) as high:
        low.command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        high.command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        low.command("CLUSTER", "MEET", "127.0.0.1", high.port)
        deadline = time.monotonic() + 20
        while not all(_ready(one) for one in (low, high)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield low, high


def _ready(server: RedisServer) -> bool:
    info: bytes = server.command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_slots_ok:16384" in info


async def test_tokens_of_the_available_primary_are_uploaded(pair: tuple[RedisServer, RedisServer]) -> None:
    """With one primary killed and the other one emptied, the other one has all of its tokens again within 15 s."""
    low, high = pair
    clock = ManualClock()
    providers = {f"p{n}": StaticToken(f"t{n}".__str__, credential_id=f"c{n}") for n in range(TOKENS)}
    broker = TokenBroker(
        providers,
        redis=f"redis+cluster://127.0.0.1:{low.port}",
        secret_key="a-secret-of-some-length",
        limits=Limits(command_seconds=5.0),
        clock=clock,
    )
    async with broker:
        for name in providers:
            await broker.token(name)
        stored, lost = _tokens(low), _tokens(high)
        assert TOKENS == stored + lost
        assert min(stored, lost) > TOKENS / 3
        high.kill()
        low.command("FLUSHALL")
        await passes(clock, lambda: _tokens(low) == stored, within=15)


def _tokens(server: RedisServer) -> int:
    return sum(key.endswith(b":token") for key in server.command("KEYS", "*"))
