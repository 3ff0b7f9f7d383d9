"""Brokers whose Redis is gone, in loops and processes that come and go: nothing hangs, nothing is left behind."""

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
from tokenmw.testing import ManualClock

LOOPS = """
import asyncio, sys
from tokenmw import TokenBroker
broker = TokenBroker({}, redis=sys.argv[1], secret_key="a secret for the tests only")

async def once(key):
    async with broker:
        return await broker.session_id(key)

async def without_closing(key):
    return await broker.session_id(key)

ids = {asyncio.run(once("k")), asyncio.run(without_closing("k")), asyncio.run(once("k"))}
print(len(ids), broker.status().shared)
"""

FORK = """
import asyncio, os, sys
from tokenmw import TokenBroker
broker = TokenBroker({}, redis=sys.argv[1], secret_key="a secret for the tests only")

async def once():
    async with broker:
        return await broker.session_id("k")

before = asyncio.run(once()) if sys.argv[2] == "used" else None
ways = []
for _ in range(2):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, asyncio.run(once()).encode())
        os._exit(0)
    os.close(writing)
    ways.append(reading)
ids = [os.read(reading, 100).decode() for reading in ways]
codes = [os.wait()[1] for _ in ways]
after = asyncio.run(once())
print(len({*ids, after, before or after}), len(after), codes)
"""


def run(program: str, *arguments: str) -> tuple[str, str]:
    """Run a program with all warnings as errors; return its output and what went to stderr."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run([*command, *arguments], cwd=ROOT, check=False, capture_output=True, text=True, timeout=30)
    return done.stdout.strip(), done.stderr


def test_a_broker_is_used_in_one_event_loop_after_the_other(redis_server: RedisServer) -> None:
    """Also after a loop in which nobody closed it; the id stays, and nothing complains of a closed loop."""
    out, err = run(LOOPS, redis_server.url)
    assert "1 off" == out, err
    assert "loop is closed" not in err


@pytest.mark.parametrize("before", ["unused", "used"])
def test_a_broker_made_before_a_fork_works_on_both_sides(redis_server: RedisServer, before: str) -> None:
    """As under a server that loads the application before it forks its workers."""
    out, err = run(FORK, redis_server.url, before)
    assert "1 36 [0, 0]" == out, err
    assert "loop is closed" not in err


@pytest.mark.parametrize("outage", ["black hole", "refused", "frozen before the first command"])
async def test_closing_during_an_outage_does_not_hang(private_redis: RedisServer, outage: str) -> None:
    """With touches that wait, a prober that probes and commands under way."""
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
            ids = [asyncio.create_task(broker.session_id(f"k{number}")) for number in range(50)]
            await asyncio.sleep(0.05)
            before = waited.seconds
        assert waited.seconds - before < 2.0
        assert 50 == len({await one for one in ids})
        assert "off" == broker.status().shared
    if outage.startswith("frozen"):
        private_redis.thaw()


@pytest.mark.parametrize("away", [False, True], ids=["Redis is there", "Redis is away"])
def test_uvicorns_workers_have_one_id_for_a_key(private_redis: RedisServer, *, away: bool) -> None:
    """`uvicorn --workers 2`: both serve, agree with and without Redis, and end without a complaint."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "tests.faults.uvicorn_app:make", "--workers", "2"]
    environment = {**os.environ, "TOKENMW_TEST_REDIS": private_redis.url}
    if away:
        private_redis.kill()
    serving = subprocess.Popen(
        [*command, "--port", str(port)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    answers: dict[int, str] = {}
    try:
        deadline = time.monotonic() + 30
        while len(answers) < 2 and time.monotonic() < deadline:
            # A connection of its own each time, so that the kernel chooses a worker anew.
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"x-api-key": "k"}, trust_env=False)
                pid, session_id = answer.json()
                answers[pid] = session_id
            time.sleep(0.01)
    finally:
        serving.terminate()
        _, err = serving.communicate(timeout=20)
    assert 2 == len(answers), err
    assert 1 == len(set(answers.values()))
    assert ("Redis cannot be used" in err) == away
    assert "Traceback" not in err
    assert "was never" not in err


async def test_a_hundred_thousand_failures_are_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """In t seconds 1 + t/60 lines, and all that happened is in their counts."""
    clock = ManualClock()
    log, failures, minutes = ThrottledLog(clock), 100_000, 10
    with caplog.at_level(logging.WARNING, "tokenmw"):
        for _ in range(failures):
            log.problem("redis", "Redis cannot be used (%s).", "timeout")
            clock.advance(minutes * 60 / failures)
        clock.advance(60)
        log.flush()
    told = sum(vars(record)["tokenmw.suppressed"] for record in caplog.records)
    assert len(caplog.records) <= 1 + minutes + 1
    assert failures == told + len(caplog.records)
