"""A fleet that starts at once: one fetch, one id for each key, and few connections, although nothing is in Redis."""

from __future__ import annotations

import time

from tests.benchmarks.coldfleet import KEYS, start_fleet
from tests.proxies import Proxy
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken

DEADLINE = 0.15


async def test_8_processes_that_start_at_once_fetch_once_and_agree() -> None:
    """Each has 20 callers of one token, 100 new keys, and 3 connections beside its listener's, made beforehand."""
    started = await start_fleet(8)
    assert 1 == started.fetches
    assert 1 == len(started.tokens)
    assert KEYS == len(started.ids)
    assert 0 == started.two_ids
    assert 4 == started.before
    assert started.most <= Limits().connections + 1


async def test_redis_that_does_not_answer_at_the_start_costs_no_request_anything(redis_server: RedisServer) -> None:
    """The start finds it out, and opens the circuit: requests send no command."""
    async with Proxy(redis_server.port) as proxy:
        proxy.black_hole = True
        limits = Limits(connect_seconds=0.3)
        async with TokenBroker({"crm": StaticToken("t" * 20)}, redis=proxy.url, limits=limits) as broker:
            began = time.monotonic()
            await broker.token("crm")
            await broker.session_id("key")
            assert time.monotonic() - began < DEADLINE


async def test_without_a_start_requests_wait_for_three_deadlines_in_all(redis_server: RedisServer) -> None:
    """No connection was ever live. The first request that needs Redis finds that out, and later ones do not wait."""
    async with Proxy(redis_server.port) as proxy:
        proxy.black_hole = True
        crm = StaticToken(lambda: "t" * 20, credential_id="crm")
        broker = TokenBroker({"crm": crm}, redis=proxy.url, secret_key="a secret for the tests only")
        try:
            began = time.monotonic()
            await broker.token("crm")
            waited = time.monotonic() - began
            assert DEADLINE < waited < 4 * DEADLINE
            for number in range(10):
                await broker.session_id(f"key-{number}")
            assert time.monotonic() - began < 4 * DEADLINE
        finally:
            async with broker:
                pass
