"""Brokers in several event loops and processes, with and without Redis: nothing hangs, and no task is left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time

import httpx
import pytest

from tests.looptime import LoopTime
from tests.ports import free_port
from tests.processes import ROOT
from tests.proxies import Proxy
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.providers import StaticToken
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.testing import ManualClock

LOOPS = """
import asyncio, sys
from tokenmw import TokenBroker
broker = TokenBroker({}, redis=sys.argv[1], secret_key="a secret for the tests only")

async def with_closing(key):
    async with broker:
        return await broker.session_id(key)

async def without_closing(key):
    return await broker.session_id(key)

ids = {asyncio.run(with_closing("k")), asyncio.run(without_closing("k")), asyncio.run(with_closing("k"))}
print(len(ids), broker.status().shared)
"""

FORK = """
import asyncio, os, sys
from tokenmw import TokenBroker
broker = TokenBroker({}, redis=sys.argv[1], secret_key="a secret for the tests only")

async def session_id():
    async with broker:
        return await broker.session_id("k")

before = asyncio.run(session_id()) if sys.argv[2] == "used" else None
pipes = []
for _ in range(2):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, asyncio.run(session_id()).encode())
        os._exit(0)
    os.close(writing)
    pipes.append(reading)
ids = [os.read(reading, 100).decode() for reading in pipes]
codes = [os.wait()[1] for _ in pipes]
after = asyncio.run(session_id())
print(len({*ids, after, before or after}), len(after), codes)
"""


def run(program: str, *arguments: str) -> tuple[str, str]:
    """Run a program with warnings as errors, and return its stdout and stderr."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run([*command, *arguments], cwd=ROOT, check=False, capture_output=True, text=True, timeout=30)
    return done.stdout.strip(), done.stderr


def test_a_broker_is_used_in_several_event_loops_in_turn(redis_server: RedisServer) -> None:
    """A key has the same id in each event loop, also after one in which the broker was not closed."""
    out, err = run(LOOPS, redis_server.url)
    assert "1 off" == out, err
    assert "loop is closed" not in err


@pytest.mark.parametrize("before", ["unused", "used"])
def test_a_broker_made_before_a_fork_works_on_both_sides(redis_server: RedisServer, before: str) -> None:
    """Parent and children get the same id, as under a server that forks its workers after loading the application."""
    out, err = run(FORK, redis_server.url, before)
    assert "1 36 [0, 0]" == out, err
    assert "loop is closed" not in err


@pytest.mark.parametrize("outage", ["black hole", "refused", "frozen before the first command"])
async def test_closing_during_an_outage_does_not_hang(private_redis: RedisServer, outage: str) -> None:
    """Closing takes less than 2 s while touches are waiting, a probe is running and commands are in progress."""
    async with Proxy(private_redis.port) as proxy, LoopTime() as waited:
        broker = TokenBroker({"a": StaticToken("t")}, redis=proxy.url, secret_key="a secret for the tests only")
        if outage.startswith("frozen"):
            private_redis.freeze()
            proxy.black_hole = True
            broker = TokenBroker(
                {}, redis=proxy.url, secret_key="a secret for the tests only", limits=Limits(connect_seconds=0.3)
            )
        async with broker:
            await broker.session_id("known")
            proxy.black_hole = True
            if outage == "refused":
                await proxy.refuse()
                proxy.cut()
            runtime = broker._runtime
            assert runtime is not None
            assert runtime.session_sync is not None
            store = runtime.session_sync.store
            tasks = [asyncio.create_task(broker.session_id(f"k{number}")) for number in range(50)]
            # First sights share a few commands.
            touches = [asyncio.create_task(store.touch([store.key(b"known")])) for _ in range(20)]
            await asyncio.sleep(0.05)
            before = waited.seconds
        assert waited.seconds - before < 2.0
        assert 50 == len({await task for task in tasks})
        results = await asyncio.gather(*touches, return_exceptions=True)
        assert {RedisUnavailable} == {type(result) for result in results}
        assert "off" == broker.status().shared
    if outage.startswith("frozen"):
        private_redis.thaw()


@pytest.mark.parametrize("available", [True, False], ids=["available", "unavailable"])
def test_uvicorn_workers_have_one_id_for_a_key(private_redis: RedisServer, *, available: bool) -> None:
    """Two uvicorn workers return the same id with and without Redis, and exit without a traceback or a warning."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "tests.faults.uvicorn_app:make", "--workers", "2"]
    environment = {**os.environ, "TOKENMW_TEST_REDIS": private_redis.url}
    if not available:
        private_redis.kill()
    server = subprocess.Popen(
        [*command, "--port", str(port)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    ids: dict[int, str] = {}
    try:
        deadline = time.monotonic() + 30
        while len(ids) < 2 and time.monotonic() < deadline:
            # A new connection each time, so that the kernel chooses a worker again.
            with contextlib.suppress(httpx.TransportError):
                response = httpx.get(f"http://127.0.0.1:{port}/", headers={"x-api-key": "k"}, trust_env=False)
                pid, session_id = response.json()
                ids[pid] = session_id
            time.sleep(0.01)
    finally:
        server.terminate()
        _, err = server.communicate(timeout=20)
    assert 2 == len(ids), err
    assert 1 == len(set(ids.values()))
    assert ("Redis unavailable" in err) == (not available)
    assert "Traceback" not in err
    assert "was never" not in err


async def test_100_000_failures_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """In t seconds 1 + t/60 lines are logged, and their counts include every failure."""
    clock = ManualClock()
    log, failures, minutes = ThrottledLog(clock), 100_000, 10
    with caplog.at_level(logging.WARNING, "tokenmw"):
        for _ in range(failures):
            log.problem("redis", "Redis unavailable (%s)", "timeout")
            clock.advance(minutes * 60 / failures)
        clock.advance(60)
        log.flush()
    suppressed = sum(vars(record)["tokenmw.suppressed"] for record in caplog.records)
    assert len(caplog.records) <= 1 + minutes + 1
    assert failures == suppressed + len(caplog.records)
