"""A token is fetched once per expiry, however many processes want it; Redis and the token server are real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.looptime import LoopTime
from tests.processes import Workers
from tokenmw.testing import ProviderServer
from tokenmw.testing.provider_server import Fault

if TYPE_CHECKING:
    from tests.servers import RedisServer

SHORT = {"fetch_seconds": 1.0, "lease_seconds": 1.5, "wait_seconds": 4.0, "command_seconds": 1.0}
"""Short limits, so that a test of an expired lease takes seconds."""


async def test_8_processes_with_8_000_callers_fetch_a_cold_token_once(
    redis_server: RedisServer,
) -> None:
    """The token server receives one request, and all callers get its token."""
    server = ProviderServer(delay=0.5)
    with server.running() as base_url:
        arguments = {
            "callers": 1000,
            "redis": redis_server.url,
            "base_url": base_url,
            "limits": {"command_seconds": 2.0},
        }
        async with Workers("tests.faults.token_workers:cold_callers", processes=8, arguments=arguments) as workers:
            await workers.receive()
            await workers.send("go")
            results = await workers.results()
    assert 1 == server.calls["oauth2"]
    values = {value for result in results for value in result["values"]}
    assert 1 == len(values)


@pytest.mark.campaign
async def test_each_expiry_causes_one_fetch_and_no_wait(redis_server: RedisServer) -> None:
    """Four processes under steady load use eight tokens in turn; the provider's tokens overlap."""
    lifetime, lifetimes = 1.5, 8
    server = ProviderServer(token_life=lifetime, delay=0.02)
    with server.running() as base_url:
        arguments: dict[str, Any] = {
            "seconds": lifetime * 0.75 * lifetimes,
            "redis": redis_server.url,
            "base_url": base_url,
        }
        arguments["limits"] = {"command_seconds": 1.0}
        async with Workers("tests.faults.token_workers:steady_load", processes=4, arguments=arguments) as workers:
            await workers.receive()
            await workers.send("go")
            results = await workers.results()
    issued = {value for result in results for value in result["values"]}
    assert 0 == sum(result["expired"] for result in results)
    # There are no more fetches than refresh windows, and each fetched token was used.
    assert lifetimes * 0.75 <= server.calls["oauth2"] <= lifetimes + 2
    assert len(issued) >= server.calls["oauth2"] - 2
    requests = 4 * arguments["seconds"] / 0.005
    assert sum(result["waited"] for result in results) <= 0.01 * requests  # waits that the machine causes


async def test_a_killed_holder_of_the_lease_is_replaced_in_time(redis_server: RedisServer) -> None:
    """After SIGKILL of the lease holder, the others have a token within the duration of the lease and one second."""
    server = ProviderServer()
    server.oauth2.script.then(Fault(delay=60.0))
    with server.running() as base_url:
        arguments = {"redis": redis_server.url, "base_url": base_url, "limits": {**SHORT, "fetch_seconds": 1.4}}
        async with Workers("tests.faults.token_workers:fetch_when_asked", processes=4, arguments=arguments) as workers:
            await workers.receive()
            await workers[0].send("go")
            await workers[0].receive()
            await until(lambda: server.calls["oauth2"] == 1)
            workers[0].kill()
            values: set[str] = set()
            async with LoopTime() as waited:
                for worker in list(workers)[1:]:
                    await worker.send("go")
                    await worker.receive()
                for worker in list(workers)[1:]:
                    values.add(await worker.result())
            assert waited.seconds < SHORT["lease_seconds"] + 1.0
    assert 1 == len(values)
    assert 2 == server.calls["oauth2"]


async def test_a_stopped_holder_cannot_commit_and_adopts_the_newer_token(
    redis_server: RedisServer,
) -> None:
    """A holder that is stopped until its lease expires does not store its token; it returns that of the next holder."""
    server = ProviderServer()
    server.oauth2.script.then(Fault(delay=0.5))
    with server.running() as base_url:
        arguments = {"redis": redis_server.url, "base_url": base_url, "limits": SHORT}
        async with Workers("tests.faults.token_workers:fetch_when_asked", processes=2, arguments=arguments) as workers:
            await workers.receive()
            stopped, other = workers
            await stopped.send("go")
            await stopped.receive()
            await until(lambda: server.calls["oauth2"] == 1)
            stopped.freeze()
            await other.send("go")
            await other.receive()
            newer = await other.result()
            stopped.thaw()
            assert newer == await stopped.result()
    assert 2 <= server.calls["oauth2"] <= 3


async def until(condition: Any) -> None:
    """Wait until a condition holds that another thread or process makes true."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110  another process has no event to wait for
            await anyio.sleep(0.01)


@pytest.mark.parametrize("processes", [1, 4])
async def test_clients_that_give_up_cause_one_fetch(redis_server: RedisServer, processes: int) -> None:
    """Callers that give up again and again before the provider responds cause one fetch in all."""
    server = ProviderServer(delay=1.0)
    with server.running() as base_url:
        arguments = {"redis": redis_server.url, "base_url": base_url, "patience": 0.3, "rounds": 5}
        target = "tests.faults.test_one_fetch:impatient"
        async with Workers(target, processes=processes, arguments=arguments) as workers:
            assert {True} == {bool(value) for value in await workers.results()}
    assert 1 == server.calls["oauth2"]


async def impatient(*, patience: float, rounds: int, **options: Any) -> str:
    """Ask for a token `rounds` times, each time for `patience` seconds; the last time, wait for it."""
    from tests.faults.token_workers import broker_of

    async with broker_of(**options, limits={"command_seconds": 1.0}) as broker:
        for _ in range(rounds - 1):
            with anyio.move_on_after(patience):
                await broker.token("crm")
        return (await broker.token("crm")).value
