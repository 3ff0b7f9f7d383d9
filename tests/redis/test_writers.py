"""A read of the epoch marker writes, so it shows that a server which had refused writes takes them again."""

from __future__ import annotations

import logging

import pytest

from tests.redis.waiting import passes
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ManualClock

SECRET = "a-secret-of-some-length"


async def test_the_marker_ends_a_row_of_refused_writes(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Two refusals, then the marker is written; so two later ones do not open the circuit breaker."""
    caplog.set_level(logging.WARNING, "tokenmw")
    clock = ManualClock()
    limits = Limits(command_seconds=5.0)
    async with TokenBroker({}, redis=private_redis.url, secret_key=SECRET, clock=clock, limits=limits) as broker:
        for attempt in (1, 2):
            private_redis.command("CONFIG", "SET", "maxmemory", "1")
            for number in range(2):
                await broker.session_id(f"key-{attempt}-{number}")
            assert ("up", "full") == (broker.status().shared, broker.status().shared_error)
            private_redis.command("CONFIG", "SET", "maxmemory", "0")
            assert 2 * attempt - 1 == _lines(caplog)  # the second refusal is only counted
            await passes(clock, lambda attempt=attempt: _lines(caplog) == 2 * attempt, within=8)  # type: ignore[misc]


def _lines(caplog: pytest.LogCaptureFixture) -> int:
    return sum(getattr(record, "tokenmw.kind", "") == "redis" for record in caplog.records)
