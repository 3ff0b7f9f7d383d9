"""The faults of a fleet: what one is, and the fleet that it disturbs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tests.faults.fleet_topologies import Topology
from tests.processes import Worker
from tokenmw.testing import ProviderServer

__all__ = [
    "COMMAND_SECONDS",
    "FIRST_KEYS",
    "NEW_KEYS",
    "TOKEN_LIFETIME",
    "Apply",
    "Fleet",
    "FleetFault",
    "begin",
    "command",
]

COMMAND_SECONDS = 0.3  # more than the default, because many processes share the machine
TOKEN_LIFETIME = 4.0  # seconds; tokens are refreshed in the last second, so that each fault sees refreshes
# Seconds. A request waits for three deadlines in all; each starts again when a connection is made for the command.
SLOWEST = 3 * 2 * COMMAND_SECONDS + 0.6
FIRST_KEYS = tuple(f"first-{number}" for number in range(40))
NEW_KEYS = tuple(f"new-{number}" for number in range(40))  # each worker sees them for the first time during the fault


@dataclass
class Fleet:
    """The servers and workers of one fault.

    Attributes:
        servers: The servers of Redis.
        long_lived: The token server whose tokens do not expire.
        start: Starts more workers; each waits for whether its clock can be wrong.
        workers: The workers that reply.
        lost: The records of killed workers, from just before that.
    """

    servers: Any
    long_lived: ProviderServer
    start: Callable[[int], Awaitable[list[Worker]]]
    workers: list[Worker] = field(default_factory=list[Worker])
    lost: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


Apply: TypeAlias = Callable[[Fleet], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class FleetFault:
    """One fault, and what is promised for it beside what is promised for all.

    Attributes:
        name: The first cell of its row in examples/guides/redis_faults.md.
        servers: Starts the servers of Redis.
        apply: A context manager that applies the fault and ends it.
        state: `status().shared` during the fault; "either" if it depends on the timing.
        workers: The number of workers.
        fetchers: The number of workers that may fetch the same token, because Redis is unavailable to them.
        first_worker: Options of the first worker, as `under_load` takes them.
        limits: The limits of the workers, beside `command_seconds`.
        seconds: Seconds for which the fault lasts, beside those that applying and ending it take.
        healed_within: The seconds after the fault within which everything is shared again.
        slowest: The bound of the duration of a request in seconds.
        cluster: Whether the servers are a cluster.
        logged: The kinds of log lines that it causes, beside those of Redis and of the token server.
    """

    name: str
    servers: Callable[[Any], Topology]
    apply: Apply
    state: Literal["up", "down", "either"] = "up"
    workers: int = 2
    fetchers: int = 1
    first_worker: dict[str, Any] = field(default_factory=dict[str, Any])
    limits: dict[str, float] = field(default_factory=dict[str, float])
    seconds: float = 2.0
    healed_within: float = 15.0
    slowest: float = SLOWEST
    cluster: bool = False
    logged: frozenset[str] = frozenset()


async def command(workers: Sequence[Worker], value: dict[str, Any]) -> list[Any]:
    """Send a command to some workers, and return their replies."""
    for worker in workers:
        await worker.send(value)
    return [await worker.receive() for worker in workers]


async def begin(workers: Sequence[Worker], keys: Sequence[str], *, first: dict[str, Any] | None = None) -> None:
    """Start the load of new workers; `first` has options of the first one."""
    await command(workers[:1], first or {})
    await command(workers[1:], {})
    await command(workers, {"keys": keys, "fault": False})
