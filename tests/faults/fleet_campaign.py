"""Runs the faults of a fleet, some at a time, and returns what callers, token servers and operators noticed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.columns import Columns, logged
from tests.faults.fleet_faults import (
    COMMAND_SECONDS,
    FIRST_KEYS,
    NEW_KEYS,
    TOKEN_LIFETIME,
    Fleet,
    FleetFault,
    begin,
    command,
)
from tests.faults.fleet_load import LONG_LIVED, Record
from tests.faults.fleet_processes import PROCESS_FAULTS
from tests.faults.fleet_servers import SERVER_FAULTS
from tests.faults.fleet_topologies import count_all_sessions, highest_versions
from tests.processes import Worker, Workers
from tests.resp import RedisServerError
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["FLEET_FAULTS", "FleetResult", "fleet_campaign"]

FLEET_FAULTS = (*SERVER_FAULTS, *PROCESS_FAULTS)
AT_ONCE = 3
BEFORE, AFTER = 1.0, 1.0  # seconds
GIVE_UP = 40.0  # seconds after the fault


@dataclass
class FleetResult:
    """The result of one fault.

    Attributes:
        fault: The fault.
        records: The record of each worker, also of killed ones.
        expired: The values that were returned after the token server considered them expired, and for how long.
        foreign: Values that were returned for another provider than that to which they were issued.
        fetches: The requests to token servers by provider.
        healed: Seconds until Redis and all workers had the same, or None.
        unhealed: What was different at the last check.
        seconds: The duration of the load.
    """

    fault: FleetFault
    records: list[Record] = field(default_factory=list[Record])
    expired: dict[str, float] = field(default_factory=dict[str, float])
    foreign: list[str] = field(default_factory=list[str])
    fetches: Counter[str] = field(default_factory=Counter[str])
    healed: float | None = None
    unhealed: str = ""
    seconds: float = 0.0

    @property
    def alternated(self) -> dict[str, set[str]]:
        """The API keys that had more than one id in all workers, with these ids."""
        ids: dict[str, set[str]] = {}
        for record in self.records:
            for key, values in record.ids.items():
                ids.setdefault(key, set()).update(values)
        return {key: values for key, values in ids.items() if len(values) > 1}

    @property
    def columns(self) -> Columns:
        """The row of the table."""
        down = sorted({reason for record in self.records for reason in record.down})
        return Columns(
            fault=self.fault.name,
            status=f"`down` {', '.join(down)}" if down else "`up`",
            requests=sum(record.requests for record in self.records),
            failed=sum(len(record.failures) for record in self.records),
            slowest=max(record.slowest for record in self.records),
            fetches=self.fetches.total(),
            alternated=len(self.alternated),
            healed=self.healed,
            logged=logged(kind for record in self.records for kind, _text in record.lines),
        )


async def fleet_campaign(faults: Iterable[FleetFault]) -> dict[str, FleetResult]:
    """Run the faults and return their results by name."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def run(fault: FleetFault) -> FleetResult:
        async with limit:
            return await _run(fault)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(fault), name=fault.name) for fault in faults]
    return {task.get_name(): task.result() for task in tasks}


async def _run(fault: FleetFault) -> FleetResult:
    result = FleetResult(fault)
    short_lived, long_lived = ProviderServer(token_life=TOKEN_LIFETIME), ProviderServer()
    async with AsyncExitStack() as stack:
        # Not in a thread: if another fault raised meanwhile, nothing would stop what the thread starts.
        base_url = stack.enter_context(short_lived.running())
        long_lived_url = stack.enter_context(long_lived.running())
        servers = fault.servers(stack)
        await servers.form()
        arguments: dict[str, Any] = {"redis": servers.redis, "base_url": base_url, "long_lived_url": long_lived_url}
        arguments["limits"] = {"command_seconds": COMMAND_SECONDS, **fault.limits}

        async def start(count: int) -> list[Worker]:
            workers = Workers("tests.faults.fleet_load:under_load", processes=count, arguments=arguments)
            return list(await stack.enter_async_context(workers))

        fleet = Fleet(servers, long_lived, start)
        await _run_load(fault, fleet, result)
    result.fetches = Counter({str(key[1]): count for key, count in _calls(short_lived, long_lived) if len(key) == 2})
    for name, value, returned in _returned(result.records):
        issued = short_lived.issued.find(value) or long_lived.issued.find(value)
        if issued is None or issued.client != name:
            result.foreign.append(f"{value} for {name}")
        elif returned >= issued.expires_at:
            result.expired[f"{value} for {name}"] = returned - issued.expires_at
    return result


async def _run_load(fault: FleetFault, fleet: Fleet, result: FleetResult) -> None:
    fleet.workers = await fleet.start(fault.workers)
    began = time.monotonic()
    await begin(fleet.workers, FIRST_KEYS, first=fault.first_worker)
    await asyncio.sleep(BEFORE)
    await command(fleet.workers, {"keys": [], "fault": True})
    async with fault.apply(fleet):
        await command(fleet.workers, {"keys": NEW_KEYS, "fault": True})
        await asyncio.sleep(fault.seconds)
    ended = time.monotonic()
    await command(fleet.workers, {"keys": NEW_KEYS, "fault": False})
    while time.monotonic() - ended < GIVE_UP:
        result.unhealed = await _difference(fleet)
        if not result.unhealed:
            result.healed = time.monotonic() - ended
            break
        await asyncio.sleep(0.25)
    await asyncio.sleep(AFTER)
    for worker in fleet.workers:
        await worker.send({"stop": True})
    result.records = [Record(**report) for report in [*fleet.lost, *[await one.result() for one in fleet.workers]]]
    result.seconds = time.monotonic() - began


async def _difference(fleet: Fleet) -> str:
    """Return what Redis and the workers do not have in common, or "" if they have the same."""
    keys = [*FIRST_KEYS, *NEW_KEYS]
    states = await command(fleet.workers, {"ask": keys})
    if any(state["shared"] != "up" or state["waiting"] for state in states):
        return f"shared and waiting: {[(state['shared'], state['waiting']) for state in states]}"
    first = states[0]
    if any(state["ids"] != first["ids"] for state in states) or None in first["ids"].values():
        return "ids"
    tokens = {name: [state["tokens"].get(name, {}).get("version") for state in states] for name in LONG_LIVED}
    try:
        sessions = count_all_sessions(fleet.servers.primaries)
        stored = highest_versions(fleet.servers.primaries, first["tokens"])
    except (OSError, RedisServerError) as error:
        return str(error)
    if any({*versions} != {stored.get(name)} for name, versions in tokens.items()):
        return f"tokens: Redis has {stored}, the workers have {tokens}"
    return "" if sessions >= len(keys) else f"sessions: Redis has {sessions} of {len(keys)}"


def _calls(*providers: ProviderServer) -> Iterator[tuple[str | tuple[str, str], int]]:
    return itertools.chain.from_iterable(provider.calls.items() for provider in providers)


def _returned(records: list[Record]) -> Iterator[tuple[str, str, float]]:
    """Yield each value that a worker returned, with its provider and the last time."""
    for record in records:
        for name, values in record.values.items():
            for value, returned in values.items():
                yield name, value, returned
