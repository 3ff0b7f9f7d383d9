"""The faults of a Sentinel's servers and of a cluster's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.faults.fleet_faults import NEW_KEYS, Fleet, FleetFault, command
from tests.faults.fleet_load import DROPPED
from tests.faults.fleet_topologies import BehindSentinel, Primaries
from tests.faults.test_failover import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import ExitStack

    from tests.faults.fleet_topologies import Topology

__all__ = ["SERVER_FAULTS"]

SESSIONS_MOVED = 7  # of each node


@contextlib.asynccontextmanager
async def _lagging_replica(fleet: Fleet) -> AsyncGenerator[None]:
    """Promote a replica without the writes of the last second: an invalidation, two tokens and the ids of new keys."""
    servers: BehindSentinel = fleet.servers
    servers.primary.command("ACL", "SETUSER", "default", "-psync", "-sync")  # it cannot connect again
    servers.primary.command("CLIENT", "KILL", "TYPE", "replica")
    await command(fleet.workers[:1], {"drop": DROPPED})
    await command(fleet.workers, {"keys": NEW_KEYS[: len(NEW_KEYS) // 2], "fault": True})
    await until(lambda: servers.lag() > len(NEW_KEYS) // 2)
    servers.primary.kill()
    await servers.promoted()
    yield
    await asyncio.to_thread(servers.primary.restart)


@contextlib.asynccontextmanager
async def _frozen_primary(fleet: Fleet) -> AsyncGenerator[None]:
    """Promote the replica of a primary that is frozen, and continue the primary.

    It accepts writes until the Sentinel makes it a replica, 8 to 15 s later; then the fault has ended.
    """
    servers: BehindSentinel = fleet.servers
    servers.primary.freeze()
    await command(fleet.workers[:1], {"drop": DROPPED})
    await servers.promoted()
    yield
    servers.primary.thaw()
    await until(lambda: b"role:slave" in servers.primary.command("INFO", "replication"), within=30.0)


@contextlib.asynccontextmanager
async def _moved_slots(fleet: Fleet) -> AsyncGenerator[None]:
    """Move the slots of all tokens, and of 21 sessions, to the next node; each is on both for 50 ms."""
    servers: Primaries = fleet.servers
    for source, target in zip(servers.nodes, servers.nodes[1:] + servers.nodes[:1], strict=True):
        keys: list[bytes] = source.command("KEYS", "tokenmw:*")
        sessions = [key for key in keys if key.endswith(b":session")]
        chosen = {*keys} - {*sessions[SESSIONS_MOVED:]}
        slots = {source.command("CLUSTER", "KEYSLOT", key) for key in chosen}
        assert len(slots) > SESSIONS_MOVED, slots
        for slot in slots:
            await servers.move_slowly(slot, source, target)
    await command(fleet.workers[:1], {"drop": DROPPED})
    yield


@contextlib.asynccontextmanager
async def _dead_primary(fleet: Fleet) -> AsyncGenerator[None]:
    servers: Primaries = fleet.servers
    servers.nodes[1].kill()
    await command(fleet.workers[:1], {"drop": DROPPED})
    yield
    await asyncio.to_thread(servers.nodes[1].restart)


@contextlib.asynccontextmanager
async def _frozen_primaries(fleet: Fleet) -> AsyncGenerator[None]:
    servers: Primaries = fleet.servers
    for node in servers.nodes[1:]:
        node.freeze()
    await command(fleet.workers[:1], {"drop": DROPPED})
    yield
    for node in servers.nodes[1:]:
        node.thaw()


def _primaries(*, full_coverage: bool) -> Callable[[ExitStack], Topology]:
    return lambda stack: Primaries(stack, full_coverage=full_coverage)


SERVER_FAULTS = (
    FleetFault(
        name="Sentinel promotes a replica that lacks the last second",
        servers=BehindSentinel,
        apply=_lagging_replica,
        fetchers=2,
        state="either",  # the replica may be promoted before three commands have failed
    ),
    FleetFault(
        name="Sentinel replaces a frozen primary, which continues",
        servers=BehindSentinel,
        apply=_frozen_primary,
        state="either",
        fetchers=2,
    ),
    FleetFault(
        name="Cluster: slots are moved", servers=_primaries(full_coverage=True), apply=_moved_slots, cluster=True
    ),
    FleetFault(
        name="Cluster: a primary without a replica is killed, and restarted empty",
        servers=_primaries(full_coverage=False),
        apply=_dead_primary,
        state="down",
        fetchers=2,
        cluster=True,
    ),
    FleetFault(
        name="Cluster: two of three primaries are frozen",
        servers=_primaries(full_coverage=True),
        apply=_frozen_primaries,
        state="down",
        fetchers=2,
        cluster=True,
    ),
)
