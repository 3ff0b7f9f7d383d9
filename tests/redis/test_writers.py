"""A probe writes, so it shows that a server which had refused writes takes them again."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.redis.waiting import passes
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ManualClock

SECRET = "a-secret-of-some-length"


async def test_a_probe_ends_a_row_of_refused_writes(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Two refusals, then housekeeping writes a probe; so two later ones do not open the circuit breaker."""
    caplog.set_level(logging.WARNING, "tokenmw")
    clock = ManualClock()
    limits = Limits(command_seconds=5.0)
    async with TokenBroker({}, redis=private_redis.url, secret_key=SECRET, clock=clock, limits=limits) as broker:
        runtime: Any = broker._runtime
        breaker = runtime.redis._significant
        for attempt in (1, 2):
            private_redis.command("CONFIG", "SET", "maxmemory", "1")
            for number in range(2):
                await broker.session_id(f"key-{attempt}-{number}")
            assert ("up", "full") == (broker.status().shared, broker.status().shared_error)
            private_redis.command("CONFIG", "SET", "maxmemory", "0")
            await passes(clock, lambda: not breaker.failing, within=8)
    assert [f"tokenmw: Redis failed 2 commands (full, 127.0.0.1:{private_redis.port}) and answers again"] == [
        record.message for record in caplog.records if getattr(record, "tokenmw.kind", "") == "redis-failed"
    ]
