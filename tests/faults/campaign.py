"""Runs all faults, four at a time: each with two or four workers under load, whose reports are returned."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.columns import Columns, logged
from tests.faults.load import SECRET, WARM
from tests.faults.name_server import HOST
from tests.faults.outage import Outage, Setup
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

    @property
    def all_phases(self) -> list[dict[str, Any]]:
        """All phases of all workers."""
        return [phase for report in self.reports for phase in report["phases"].values()]

    @property
    def ids(self) -> dict[str, set[str]]:
        """All session ids of each API key, of all workers."""
        ids: dict[str, set[str]] = {}
        for phase in self.all_phases:
            for key, session_id in phase["ids"].items():
                ids.setdefault(key, set()).update((session_id, *phase["changed"].get(key, ())))
        return ids

    @property
    def columns(self) -> Columns:
        """What callers, the token server and operators noticed of the fault."""
        phases = self.all_phases
        return Columns(
            fault=self.outage.name,
            status=", ".join(sorted({f"`{report['shared']}` {report['error']}".strip() for report in self.during})),
            requests=sum(phase["requests"] for phase in phases),
            failed=sum(len(phase["failures"]) for phase in phases),
            slowest=max(wait for phase in phases for wait in (phase["longest"], *phase["warm"])),
            fetches=self.fetches,
            alternated=sum(len(ids) > 1 for ids in self.ids.values()),
            healed=self.recovery,
            logged=logged(kind for report in self.reports for kind, _suppressed, _text in report["lines"]),
        )


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
        proxies = [
            await stack.enter_async_context(ProxyProcess(server.port))
            for _ in range(0 if outage.direct else outage.workers // 2)
        ]
        urls = [server.url] if outage.direct else [proxy.url for proxy in proxies]
        if outage.by_name:
            urls = [url.replace("127.0.0.1", HOST) for url in urls]
        arguments: dict[str, Any] = {"base_url": base_url, "long_lived_url": long_lived_url}
        arguments |= {
            "client": outage.client,
            "limits": {"command_seconds": COMMAND_SECONDS},
            "broker": dict(outage.broker),
        }
        own = [{"redis": urls[number // 2]} for number in range(outage.workers)]
        target = "tests.faults.load:under_load"
        workers = await stack.enter_async_context(
            Workers(target, processes=outage.workers, arguments=arguments, own=own)
        )
        setup = Setup(server, proxies, stack.enter_context(server.connect()), workers)
        await workers.receive()
        await _run_phases(result, workers, setup)
        await workers.send({"stop": True})
        result.reports = await workers.results()
    result.fetches = provider.calls["oauth2"]
    for phase in result.all_phases:
        for name, values in phase["values"].items():
            result.foreign += [value for value in values if _client(provider, value) != name]
    result.seconds = time.monotonic() - began
    return result


def _client(provider: ProviderServer, value: str) -> str | None:
    issued = provider.issued.find(value)
    return None if issued is None else issued.client


async def _run_phases(result: Result, workers: Workers, setup: Setup) -> None:
    outage = result.outage
    # Only one worker knows the key `only-…`; during the fault the others see it for the first time.
    only = [f"only-{number}" for number in range(outage.workers)]
    for worker, key in zip(workers, only, strict=True):
        await worker.send({"phase": "before", "keys": [*WARM, key]})
        await worker.receive()
    await asyncio.sleep(BEFORE)
    result.before = await _wait_until_shared(workers, only)
    fresh = [*only, *(f"fresh-{number}" for number in range(20))]
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
        if idle and all(ids == result.after[0] for ids in result.after):
            await asyncio.to_thread(_read_redis, result, setup.server, reports)
            if result.sessions == result.keys and result.consistent:
                result.recovery = time.monotonic() - ended
                break
        if not outage.recovers:
            return
        await asyncio.sleep(0.25)
    # It does not use the proxy. Its caches are empty, so its ids are those in Redis.
    async with TokenBroker(
        {}, redis=setup.server.url, secret_key=SECRET, limits=LONG_LIMITS, **outage.broker
    ) as broker:
        result.third = {key: await broker.session_id(key) for key in keys}


async def _wait_until_known(workers: Workers, keys: list[str]) -> list[dict[str, Any]]:
    """Wait until each worker has an id for all keys; a stalled event loop needs longer."""
    async with asyncio.timeout(20):
        while True:
            reports = await _ask(workers, keys)
            if all(None not in report["ids"].values() for report in reports):
                return reports
            await asyncio.sleep(0.1)


async def _wait_until_shared(workers: Workers, only: list[str]) -> list[dict[str, str]]:
    """Wait until each worker has ids for its keys and all are shared; after a slow start, some ids are replaced."""
    async with asyncio.timeout(20):
        while True:
            reports = await _ask(workers, [*WARM, *only])
            ids = [{key: session_id for key, session_id in report["ids"].items() if session_id} for report in reports]
            if all(report["waiting"] == 0 for report in reports) and all(len(known) == len(WARM) + 1 for known in ids):
                return ids
            await asyncio.sleep(0.1)


def _read_redis(result: Result, server: RedisServer, reports: list[dict[str, Any]]) -> None:
    """Record what the server holds, and whether the workers have the same."""
    if result.sessions != result.keys:  # the count needs some hundred commands
        result.sessions = count_sessions(server)
    dropper, *others = result.served = [report["tokens"] for report in reports]
    result.tokens = token_versions(server, dropper)
    result.consistent = is_consistent(
        result.tokens, dropper, others, down=[state == "down" for state in result.outage.states[1:]]
    )


async def _command(workers: Workers, command: dict[str, Any]) -> None:
    await workers.send(command)
    await workers.receive()


async def _ask(workers: Workers, keys: list[str]) -> list[dict[str, Any]]:
    await workers.send({"ask": keys})
    return await workers.receive()
