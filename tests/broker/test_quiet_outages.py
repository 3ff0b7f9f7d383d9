"""An outage is logged within 3 s of its first failure in a program that sends hardly any commands."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers import runtime_of
from tests.proxies import Proxy
from tests.redis.waiting import until
from tokenmw import Limits, TokenBroker

if TYPE_CHECKING:
    from tests.servers import RedisServer

SECRET: dict[str, Any] = {"secret_key": "a-secret-of-some-length"}


@pytest.mark.parametrize("fault", ["frozen", "black hole", "stopped", "full"])
async def test_an_outage_is_logged_within_three_seconds_of_one_failed_command(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """No request follows the one that failed; the periodic check of housekeeping, every 5 s, would take 15 s."""
    async with (
        Proxy(private_redis.port) as proxy,
        TokenBroker({}, redis=proxy.url, hints=False, limits=Limits(check_seconds=1e6), **SECRET) as broker,
    ):
        await broker.session_id("before")
        if fault == "frozen":
            private_redis.freeze()
        elif fault == "black hole":
            proxy.black_hole = True
        elif fault == "stopped":
            private_redis.stop()
            proxy.cut()
        else:
            private_redis.command("CONFIG", "SET", "maxmemory", "1")
        began = time.monotonic()
        await broker.session_id("key")
        await until(lambda: broker.status().shared == "down", within=20)
        assert time.monotonic() - began < 3.5  # half a second for a busy machine
        assert [True] == ["Redis unavailable (" in message for message in caplog.messages]
        if fault == "frozen":
            private_redis.thaw()


async def test_one_failure_is_logged_as_one_that_was_no_outage(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The probe that follows it succeeds, and one is enough."""
    async with (
        Proxy(private_redis.port) as proxy,
        TokenBroker({}, redis=proxy.url, hints=False, **SECRET) as broker,
    ):
        await broker.session_id("before")
        fleet = runtime_of(broker).fleet
        assert fleet is not None
        await fleet.close()  # a heartbeat would be a second command that fails
        proxy.black_hole = True
        await broker.session_id("key")
        proxy.black_hole = False
        proxy.cut()
        await until(lambda: bool(caplog.messages), within=5)
        assert ["tokenmw: Redis failed 1 command (timeout"] == [one.partition(",")[0] for one in caplog.messages]
        assert "up" == broker.status().shared


async def test_a_healthy_server_gets_no_probes(private_redis: RedisServer) -> None:
    """In three rounds of housekeeping it gets the check for lost data and a heartbeat, each once in 5 s, no more."""
    async with TokenBroker({}, redis=private_redis.url, hints=False, **SECRET):
        await asyncio.sleep(0.5)
        private_redis.command("CONFIG", "RESETSTAT")
        await asyncio.sleep(3.5)
        statistics: bytes = private_redis.command("INFO", "commandstats")
    calls = {line.split(b":")[0]: int(line.split(b"calls=")[1].split(b",")[0]) for line in statistics.split()[2:]}
    assert calls.get(b"cmdstat_evalsha", 0) <= 2
    assert calls.get(b"cmdstat_set", 0) <= 2
    assert b"cmdstat_getex" not in calls  # which each probe sends
