"""Runs all faults, four at a time: each with two workers under load, whose reports are returned."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.load import SECRET, WARM
from tests.faults.outages import Outage, Setup
from tests.faults.proxy_process import ProxyProcess
from tests.faults.redis_contents import count_sessions, is_consistent, token_versions
from tests.processes import Workers
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMMAND_SECONDS", "RECOVERED_WITHIN", "TOKEN_LIFETIME", "Result", "campaign"]

AT_ONCE = 4
RECOVERED_WITHIN = 15.0  # seconds
TOKEN_LIFETIME = 4.0  # seconds; tokens are refreshed in the last second, so each fault sees refreshes
BEFORE, DURING = 1.0, 2.0  # seconds
COMMAND_SECONDS = 0.3  # more than the default, because many processes share the machine
LONG_LIMITS = Limits(command_seconds=2.0)


@dataclass
class Result:
    """The result of one fault.

    Attributes:
        outage: The fault.
        reports: The report of each worker.
        before: Each worker's session ids when the fault began.
        during: Each worker's state when the fault ended.
        recovery: Seconds until everything was shared again, without requests; None if it was not.
        after: Each worker's session ids after the recovery.
        third: The session ids that a third process gets after the recovery.
        sessions: The number of session ids in Redis after the recovery.
        tokens: The versions of tokens and tombstones in Redis after the recovery.
        served: The tokens that each worker serves after the recovery.
        consistent: Whether Redis and the workers have the same tokens and invalidations.
        keys: The number of API keys.
        fetches: The number of requests to the token server.
        foreign: Tokens that were returned for another provider.
        seconds: The duration of the whole run.
    """

    outage: Outage
    reports: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    before: list[dict[str, str]] = field(default_factory=list[dict[str, str]], repr=False)
    during: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    recovery: float | None = None
    after: list[dict[str, str | None]] = field(default_factory=list[dict[str, str | None]], repr=False)
    third: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    sessions: int = 0
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    served: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    consistent: bool = False
    keys: int = 0
    fetches: int = 0
    foreign: list[str] = field(default_factory=list[str], repr=False)
    seconds: float = 0.0

    def phases(self, name: str) -> list[dict[str, Any]]:
        """Return each worker's report of one phase."""
        return [report["phases"][name] for report in self.reports]


async def campaign(outages: Iterable[Outage]) -> dict[str, Result]:
    """Run the faults and return their results by name."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def run(outage: Outage) -> Result:
        async with limit:
            return await _run(outage, long_lived_url)

    async with AsyncExitStack() as stack:
        long_lived_url = await asyncio.to_thread(stack.enter_context, ProviderServer().running())
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(run(outage), name=outage.name) for outage in outages]
    return {task.get_name(): task.result() for task in tasks}


async def _run(outage: Outage, long_lived_url: str) -> Result:
    result, began = Result(outage), time.monotonic()
    provider = ProviderServer(token_life=TOKEN_LIFETIME)
    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, RedisServer(*outage.options))
        base_url = await asyncio.to_thread(stack.enter_context, provider.running())
        proxy = await stack.enter_async_context(ProxyProcess(server.port))
        setup = Setup(server, proxy, stack.enter_context(server.connect()))
        arguments: dict[str, Any] = {"redis": server.url if outage.direct else proxy.url, "base_url": base_url}
        arguments |= {"long_lived_url": long_lived_url, "limits": {"command_seconds": COMMAND_SECONDS}}
        target = "tests.faults.load:under_load"
        workers = await stack.enter_async_context(Workers(target, processes=2, arguments=arguments))
        await workers.receive()
        await _run_phases(result, workers, setup)
        await workers.send({"stop": True})
        result.reports = await workers.results()
    result.fetches = provider.calls["oauth2"]
    for phase in (phase for report in result.reports for phase in report["phases"].values()):
        for name, values in phase["values"].items():
            result.foreign += [value for value in values if _client(provider, value) != name]
    result.seconds = time.monotonic() - began
    return result


def _client(provider: ProviderServer, value: str) -> str | None:
    issued = provider.issued.find(value)
    return None if issued is None else issued.client


async def _run_phases(result: Result, workers: Workers, setup: Setup) -> None:
    outage = result.outage
    # Only one worker knows the key `only-…`; during the fault the other one sees it for the first time.
    for number, worker in enumerate(workers):
        await worker.send({"phase": "before", "keys": [*WARM, f"only-{number}"]})
        await worker.receive()
    await asyncio.sleep(BEFORE)
    result.before = await _wait_until_shared(workers)
    fresh = ["only-0", "only-1", *(f"fresh-{number}" for number in range(20))]
    await _command(workers, {"phase": "between"})
    async with outage.apply(setup):
        await _command(workers, {"phase": "during", "keys": fresh, "stall": outage.stall})
        await workers[0].send({"drop": "dropped"})
        await workers[0].receive()
        await asyncio.sleep(DURING)
        keys = [*WARM, *fresh]
        result.during = await _wait_until_known(workers, keys)
        await _command(workers, {"phase": "ending"})
    await _command(workers, {"phase": "idle"})
    result.keys = len(keys)
    ended = time.monotonic()
    while time.monotonic() - ended < RECOVERED_WITHIN:
        reports = await _ask(workers, keys)
        result.after = [report["ids"] for report in reports]
        idle = all(report["shared"] == "up" and report["waiting"] == 0 for report in reports)
        if idle and result.after[0] == result.after[1]:
            await asyncio.to_thread(_read_redis, result, setup.server, reports)
            if result.sessions == result.keys and result.consistent:
                result.recovery = time.monotonic() - ended
                break
        if not outage.recovers:
            return
        await asyncio.sleep(0.25)
    # It does not use the proxy. Its caches are empty, so its ids are those in Redis.
    async with TokenBroker({}, redis=setup.server.url, secret_key=SECRET, limits=LONG_LIMITS) as broker:
        result.third = {key: await broker.session_id(key) for key in keys}


async def _wait_until_known(workers: Workers, keys: list[str]) -> list[dict[str, Any]]:
    """Wait until each worker has an id for all keys; a stalled event loop needs longer."""
    async with asyncio.timeout(20):
        while True:
            reports = await _ask(workers, keys)
            if all(None not in report["ids"].values() for report in reports):
                return reports
            await asyncio.sleep(0.1)


async def _wait_until_shared(workers: Workers) -> list[dict[str, str]]:
    """Wait until each worker has ids for its keys and all are shared; after a slow start, some ids are replaced."""
    async with asyncio.timeout(20):
        while True:
            reports = await _ask(workers, [*WARM, "only-0", "only-1"])
            ids = [{key: session_id for key, session_id in report["ids"].items() if session_id} for report in reports]
            if all(report["waiting"] == 0 for report in reports) and [len(WARM) + 1] * 2 == list(map(len, ids)):
                return ids
            await asyncio.sleep(0.1)


def _read_redis(result: Result, server: RedisServer, reports: list[dict[str, Any]]) -> None:
    """Record what the server holds, and whether the workers have the same."""
    if result.sessions != result.keys:  # the count needs some hundred commands
        result.sessions = count_sessions(server)
    dropper, other = result.served = [report["tokens"] for report in reports]
    result.tokens = token_versions(server, dropper)
    result.consistent = is_consistent(result.tokens, dropper, other, down=result.outage.state == "down")


async def _command(workers: Workers, command: dict[str, Any]) -> None:
    await workers.send(command)
    await workers.receive()


async def _ask(workers: Workers, keys: list[str]) -> list[dict[str, Any]]:
    await workers.send({"ask": keys})
    return await workers.receive()
