"""The faults of the workers' processes: killed, stopped, blocked, with a wrong clock, without open files."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.faults.fleet_faults import FIRST_KEYS, NEW_KEYS, SLOWEST, TOKEN_LIFETIME, Fleet, FleetFault, begin, command
from tests.faults.fleet_load import DROPPED, HELD
from tests.faults.fleet_topologies import OneServer
from tests.faults.test_failover import until
from tokenmw.testing.provider_server import Fault, Hang

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.faults.fleet_faults import Apply

__all__ = ["PROCESS_FAULTS"]

# Longer than a token server takes on a busy machine.
LEASES = {"fetch_seconds": 3.0, "lease_seconds": 3.5, "wait_seconds": 9.0}
TAKEN_OVER = frozenset({"lease:held"})  # the operator learns that a process with a lease did not finish
STOPPED_SECONDS = 5.0  # longer than a lease, than the deadlines of commands and than the lifetime of tokens
BLOCKED_SECONDS = 1.0
FILES, TENANTS = 64, 80


def _clock(offset: float) -> Apply:
    """Return a fault of the first worker's wall clock: it is wrong by `offset` seconds, then right again."""

    @contextlib.asynccontextmanager
    async def apply(fleet: Fleet) -> AsyncGenerator[None]:
        await command(fleet.workers[:1], {"offset": offset})
        await command(fleet.workers[:1], {"drop": DROPPED})
        yield
        await command(fleet.workers[:1], {"offset": 0.0})

    return apply


async def _hold_a_lease(fleet: Fleet) -> Hang:
    """Let the first worker take the lease for a token that none has, and wait for the token server."""
    hang = Hang()
    fleet.long_lived.oauth2.script.then(Fault(hang=hang))
    await command(fleet.workers[:1], {"fetch": HELD})
    await until(hang.arrived.is_set)
    return hang


@contextlib.asynccontextmanager
async def _killed_workers(fleet: Fleet) -> AsyncGenerator[None]:
    """Kill two of four workers, one of which holds a lease; start two others afterwards."""
    hang = await _hold_a_lease(fleet)
    killed = fleet.workers[:2]
    fleet.lost += await command(killed, {"report": True})
    for worker in killed:
        worker.kill()
        fleet.workers.remove(worker)
    await command(fleet.workers, {"use": HELD})
    await command(fleet.workers[:1], {"drop": DROPPED})
    yield
    hang.release()
    started = await fleet.start(2)
    await begin(started, [*FIRST_KEYS, *NEW_KEYS])
    fleet.workers += started


@contextlib.asynccontextmanager
async def _stopped_workers(fleet: Fleet) -> AsyncGenerator[None]:
    """Stop two of four workers, one of which holds a lease; the token server answers it meanwhile."""
    hang = await _hold_a_lease(fleet)
    stopped = fleet.workers[:2]
    for worker in stopped:
        worker.freeze()
        fleet.workers.remove(worker)
    await command(fleet.workers, {"use": HELD})
    await command(fleet.workers[:1], {"drop": DROPPED})
    await asyncio.sleep(1.0)
    hang.release()
    yield
    for worker in stopped:
        worker.thaw()
    fleet.workers[:0] = stopped


@contextlib.asynccontextmanager
async def _blocked_loops(fleet: Fleet) -> AsyncGenerator[None]:
    await command(fleet.workers, {"block": [BLOCKED_SECONDS, 0.5]})
    await command(fleet.workers[:1], {"drop": DROPPED})
    yield
    await command(fleet.workers, {"block": None})


@contextlib.asynccontextmanager
async def _new_tenants(fleet: Fleet) -> AsyncGenerator[None]:
    """Let the first worker serve many new tenants at the same time, each with an API key and a token of its own."""
    await command(fleet.workers[:1], {"tenants": TENANTS})
    await command(fleet.workers[:1], {"drop": DROPPED})
    yield


PROCESS_FAULTS = (
    FleetFault(
        name="a worker's clock is 10 minutes ahead",
        servers=OneServer,
        apply=_clock(600.0),
        first_worker={"wrong_clock": True},
        seconds=TOKEN_LIFETIME,
    ),
    FleetFault(
        name="a worker's clock is 10 minutes behind",
        servers=OneServer,
        apply=_clock(-600.0),
        first_worker={"wrong_clock": True},
        seconds=TOKEN_LIFETIME,
    ),
    FleetFault(
        name="two of four workers are killed, and replaced",
        servers=OneServer,
        apply=_killed_workers,
        workers=4,
        limits=LEASES,
        slowest=LEASES["lease_seconds"] + SLOWEST,
        logged=TAKEN_OVER,
    ),
    FleetFault(
        name="two of four workers are stopped for 5 s",
        servers=OneServer,
        apply=_stopped_workers,
        workers=4,
        limits=LEASES,
        seconds=STOPPED_SECONDS,
        slowest=STOPPED_SECONDS + SLOWEST,  # a stopped worker's requests wait as long as it is stopped
        logged=TAKEN_OVER,
    ),
    FleetFault(
        name="the event loops of all workers are blocked for 1 s of each 1.5 s",
        servers=OneServer,
        apply=_blocked_loops,
        state="either",
        fetchers=2,
        seconds=6.0,
        slowest=2 * BLOCKED_SECONDS + SLOWEST,
    ),
    FleetFault(
        name=f"`ulimit -n {FILES}` in a worker that serves {TENANTS} new tenants",
        servers=OneServer,
        apply=_new_tenants,
        first_worker={"files": FILES},
        limits={"fetch_seconds": 10.0, "lease_seconds": 11.0, "wait_seconds": 12.0},
        slowest=5.0,  # the fetches share 16 connections
    ),
)
