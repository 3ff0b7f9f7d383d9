"""All faults in one go, a few side by side: two workers under load each, and what they saw."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.load import SECRET, WARM
from tests.faults.outages import Outage, Place
from tests.faults.proxy_process import Line
from tests.faults.redis_contents import all_told, sessions, tokens
from tests.processes import Workers
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMMAND", "HEALED_WITHIN", "TOKEN_LIFE", "Finding", "campaign"]

SIDE_BY_SIDE = 4
HEALED_WITHIN = 15.0  # seconds
TOKEN_LIFE = 4.0  # seconds; renewed in the last of them, so that some are renewed in each fault
BEFORE, DURING = 1.0, 2.0  # seconds
COMMAND = 0.3  # seconds; more than by default, since many processes share the machine here
PATIENT = Limits(command_seconds=2.0)


@dataclass
class Finding:
    """What one fault showed.

    Attributes:
        outage: The fault.
        reports: What each worker saw.
        before: Each worker's ids at the beginning of the fault.
        during: Each worker's state at the end of the fault.
        healed: Seconds until all was shared again without requests, or None.
        after: Each worker's ids after that.
        newcomer: The ids that a third process then gets.
        sessions: How many session ids the server then held.
        tokens: The versions of the tokens and of their tombstones that it then held.
        served: What the workers then had of them.
        told: Whether that is the same.
        known: How many keys there were.
        fetches: How often the token server was asked.
        foreign: Tokens that were handed out under another provider's name.
        seconds: How long it all took.
    """

    outage: Outage
    reports: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    before: list[dict[str, str]] = field(default_factory=list[dict[str, str]], repr=False)
    during: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    healed: float | None = None
    after: list[dict[str, str | None]] = field(default_factory=list[dict[str, str | None]], repr=False)
    newcomer: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    sessions: int = 0
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    served: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    told: bool = False
    known: int = 0
    fetches: int = 0
    foreign: list[str] = field(default_factory=list[str], repr=False)
    seconds: float = 0.0

    def phases(self, name: str) -> list[dict[str, Any]]:
        """Return what each worker saw in a phase."""
        return [report["phases"][name] for report in self.reports]


async def campaign(outages: Iterable[Outage]) -> dict[str, Finding]:
    """Make all the faults; return what each showed, by its name."""
    seats = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(outage: Outage) -> Finding:
        async with seats:
            return await _found(outage, lasting_url)

    async with AsyncExitStack() as stack:
        lasting_url = await asyncio.to_thread(stack.enter_context, ProviderServer().running())
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(one(outage), name=outage.name) for outage in outages]
    return {task.get_name(): task.result() for task in tasks}


async def _found(outage: Outage, lasting_url: str) -> Finding:
    finding, began = Finding(outage), time.monotonic()
    provider = ProviderServer(token_life=TOKEN_LIFE)
    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, RedisServer(*outage.options))
        base_url = await asyncio.to_thread(stack.enter_context, provider.running())
        line = await stack.enter_async_context(Line(server.port))
        place = Place(server, line, stack.enter_context(server.connect()))
        arguments: dict[str, Any] = {"redis": server.url if outage.direct else line.url, "base_url": base_url}
        arguments |= {"lasting_url": lasting_url, "limits": {"command_seconds": COMMAND}}
        target = "tests.faults.load:under_load"
        workers = await stack.enter_async_context(Workers(target, processes=2, arguments=arguments))
        await workers.receive()
        await _go_through(finding, workers, place)
        await workers.send({"end": True})
        finding.reports = await workers.results()
    finding.fetches = provider.calls["oauth2"]
    for phase in (phase for report in finding.reports for phase in report["phases"].values()):
        for name, values in phase["values"].items():
            finding.foreign += [value for value in values if _client(provider, value) != name]
    finding.seconds = time.monotonic() - began
    return finding


def _client(provider: ProviderServer, value: str) -> str | None:
    issued = provider.issued.find(value)
    return None if issued is None else issued.client


async def _go_through(finding: Finding, workers: Workers, place: Place) -> None:
    outage = finding.outage
    # What each worker alone has seen is what the other one derives a second id for.
    for number, worker in enumerate(workers):
        await worker.send({"phase": "before", "keys": [*WARM, f"only-{number}"]})
        await worker.receive()
    await asyncio.sleep(BEFORE)
    finding.before = await _settled(workers)
    fresh = ["only-0", "only-1", *(f"fresh-{number}" for number in range(20))]
    await _order(workers, {"phase": "between"})
    async with outage.made(place):
        await _order(workers, {"phase": "during", "keys": fresh, "stall": outage.stall})
        await workers[0].send({"drop": "dropped"})
        await workers[0].receive()
        await asyncio.sleep(DURING)
        keys = [*WARM, *fresh]
        finding.during = await _met(workers, keys)
        await _order(workers, {"phase": "lifting"})
    await _order(workers, {"phase": "quiet"})
    finding.known = len(keys)
    lifted = time.monotonic()
    while time.monotonic() - lifted < HEALED_WITHIN:
        answers = await _asked(workers, keys)
        finding.after = [answer["ids"] for answer in answers]
        idle = all(answer["shared"] == "up" and answer["waiting"] == 0 for answer in answers)
        if idle and finding.after[0] == finding.after[1]:
            await asyncio.to_thread(_look, finding, place.server, answers)
            if finding.sessions == finding.known and finding.told:
                finding.healed = time.monotonic() - lifted
                break
        if not outage.heals:
            return
        await asyncio.sleep(0.25)
    # It comes directly: what is asked is what Redis holds.
    async with TokenBroker({}, redis=place.server.url, secret_key=SECRET, limits=PATIENT) as broker:
        finding.newcomer = {key: await broker.session_id(key) for key in keys}


async def _met(workers: Workers, keys: list[str]) -> list[dict[str, Any]]:
    """Wait until each worker has met all keys, which takes one that stands still a little longer."""
    async with asyncio.timeout(20):
        while True:
            answers = await _asked(workers, keys)
            if all(None not in answer["ids"].values() for answer in answers):
                return answers
            await asyncio.sleep(0.1)


async def _settled(workers: Workers) -> list[dict[str, str]]:
    """Wait until each worker knows its keys and all that it knows is shared; a slow start makes some ids twice."""
    async with asyncio.timeout(20):
        while True:
            answers = await _asked(workers, [*WARM, "only-0", "only-1"])
            ids = [{key: known for key, known in answer["ids"].items() if known} for answer in answers]
            if all(answer["waiting"] == 0 for answer in answers) and [len(WARM) + 1] * 2 == list(map(len, ids)):
                return ids
            await asyncio.sleep(0.1)


def _look(finding: Finding, server: RedisServer, answers: list[dict[str, Any]]) -> None:
    """Take note of what the server holds, and whether it is what the workers have."""
    if finding.sessions != finding.known:  # some hundred commands
        finding.sessions = sessions(server)
    dropper, other = finding.served = [answer["tokens"] for answer in answers]
    finding.tokens = tokens(server, dropper)
    finding.told = all_told(finding.tokens, dropper, other, down=finding.outage.state == "down")


async def _order(workers: Workers, order: dict[str, Any]) -> None:
    await workers.send(order)
    await workers.receive()


async def _asked(workers: Workers, keys: list[str]) -> list[dict[str, Any]]:
    await workers.send({"ask": keys})
    return await workers.receive()
