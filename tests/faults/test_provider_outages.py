"""Providers that fail and come back, with several processes, a real Redis and a real token server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import Workers
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

pytestmark = pytest.mark.campaign

PROCESSES = 4


def workers(server: RedisServer, base_url: str, target: str, **options: Any) -> Workers:
    """Return processes that run a target of `tests.faults.token_workers`."""
    arguments = {"redis": server.url, "base_url": base_url, "limits": {"command_seconds": 1.0}, **options}
    return Workers(f"tests.faults.token_workers:{target}", processes=PROCESSES, arguments=arguments)


@pytest.mark.parametrize(
    "fault", [Fault(status=503, body={"error": "temporarily_unavailable"}), Fault(close=True)], ids=["503", "network"]
)
async def test_a_provider_that_is_back_serves_all_processes_within_seconds(
    redis_server: RedisServer, fault: Fault
) -> None:
    """One process finds it with its probe, at most 1.25 s after the last one; the others read the token in 1.5 s."""
    server = ProviderServer()
    server.oauth2.script.always = fault
    with server.running() as base_url:
        limits = {"command_seconds": 1.0, "probe_seconds": 1.0}
        async with workers(redis_server, base_url, "count_refusals", seconds=8.0, limits=limits) as processes:
            await processes.receive()
            await processes.send("go")
            await asyncio.sleep(4.0)
            probes = server.calls["oauth2"]
            server.oauth2.script.always = None
            back = time.monotonic()
            results = await processes.results()
    # A process that writes down the end of its refusals uses the same clock: all run on one machine.
    ends = [result["last_refused"] - back for result in results]
    assert all(result["refused"] > 0 for result in results)
    assert max(ends) <= 1.5 + 1.5
    assert probes <= 8
    assert server.calls["oauth2"] == probes + 1


async def test_the_cause_of_a_time_limit_reaches_the_processes_that_waited(redis_server: RedisServer) -> None:
    """A provider that answers too late is asked by one process at a time with pauses, and each error names it."""
    server = ProviderServer(delay=1.2)
    limits = {"command_seconds": 1.0, "fetch_seconds": 1.0, "lease_seconds": 1.5, "probe_seconds": 1.0}
    with server.running() as base_url:
        async with workers(redis_server, base_url, "count_refusals", seconds=6.0, limits=limits) as processes:
            await processes.receive()
            await processes.send("go")
            results = await processes.results()
    texts = {text for result in results for text in result["texts"]}
    assert texts
    assert all("did not answer within 1 s (read timeout)" in text for text in texts)
    assert any("(reported by " in text for text in texts)
    assert server.calls["oauth2"] <= 5


async def test_the_lease_of_a_killed_process_is_free_soon_after_its_request_would_have_ended(
    redis_server: RedisServer,
) -> None:
    """With the default limits another process asks 5.3 s after the killed one, before `lease_seconds` of 6 s."""
    server = ProviderServer()
    server.oauth2.script.then(Fault(delay=60.0))
    with server.running() as base_url:
        async with workers(redis_server, base_url, "fetch_when_asked", limits={}) as processes:
            await processes.receive()
            await processes[0].send("go")
            await processes[0].receive()
            await until(lambda: server.calls["oauth2"] == 1)
            asked = time.monotonic()
            processes[0].kill()
            for number in range(1, PROCESSES):
                await processes[number].send("go")
                await processes[number].receive()
            await until(lambda: server.calls["oauth2"] == 2)
            assert 5.0 <= time.monotonic() - asked <= 5.9
            values = {await processes[number].result() for number in range(1, PROCESSES)}
    assert 1 == len(values)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110  another process has no event to wait for
            await asyncio.sleep(0.01)
