"""How much of Redis a fleet needs: arithmetic over what one operation costs. Pure functions, measured by `fleet`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Costs", "Fleet", "Load", "Primary", "primaries_needed", "primary", "steady_loads"]

REFRESHED_AFTER = 0.775  # of a token's lifetime: on average a fresh token is requested in the middle of that window
EPOCH_CHECK_SECONDS = 5.0  # seconds between two reads of a server's epoch marker
HEARTBEAT_SECONDS = 4.75  # seconds between two heartbeats of an instance, on average
UPLOADS_OF_TOKENS = 2  # rounds after a recovery; in each, nearly all tokens are found to be stored already
UPLOADS_OF_A_SHARED_SESSION = 1.1  # instances that do not know of each other may upload the same one; see `healing`
OTHER_BYTES_A_CONNECTION = 20_000  # of the server: buffers of a client that sends batches


@dataclass(frozen=True)
class Costs:
    """What one operation costs a Redis server.

    Attributes:
        microseconds: Processor time of the server's thread, by operation.
        token_bytes: Memory of a token.
        session_bytes: Memory of a session.
    """

    microseconds: Mapping[str, float]
    token_bytes: float
    session_bytes: float


@dataclass(frozen=True)
class Fleet:
    """Instances that share one Redis, and what each of them has in use all the time.

    Attributes:
        instances: Processes with a broker.
        sessions: Sessions in use in each instance.
        distinct_sessions: Different sessions of all instances together: as many as `sessions` if each instance serves
            all callers, and more if callers stay with an instance.
        tenants: Tokens in use in each instance; all instances use the same ones.
        session_ttl: Seconds.
        touches_per_ttl: How often a session in use is touched within its `session_ttl`, by each instance.
        check_seconds: Seconds between two comparisons of a token in use with Redis.
        token_seconds: Lifetime of a token.
        connections: Connections of an instance to each primary.
    """

    instances: int
    sessions: int
    distinct_sessions: int
    tenants: int
    session_ttl: float
    touches_per_ttl: int
    check_seconds: float
    token_seconds: float
    connections: int


@dataclass(frozen=True)
class Load:
    """One kind of operation of a whole fleet.

    Attributes:
        operation: Its name in `Costs.microseconds`.
        per_second: How many run in a second.
        cores: Cores of Redis that they keep busy; above 1 they need more than one primary.
    """

    operation: str
    per_second: float
    cores: float


@dataclass(frozen=True)
class Primary:
    """What one primary would need for a whole fleet.

    Attributes:
        commands: Operations a second.
        cores: Cores that they keep busy.
        connections: Client connections.
        gigabytes: Memory of tokens, sessions and connections.
        healing_seconds: Seconds of one core to store all sessions and tokens again after the data were lost.
        deploy_seconds: Seconds of one core to look up all sessions of all instances after all have restarted.
    """

    commands: float
    cores: float
    connections: int
    gigabytes: float
    healing_seconds: float
    deploy_seconds: float


def steady_loads(fleet: Fleet, costs: Costs) -> list[Load]:
    """Return what a fleet in use asks of Redis in a second, by operation, the dearest first.

    Each token is fetched once in its refresh interval by one instance, and the other instances take it over. Each
    commit is announced to every instance, which then compares that token.
    """
    refreshes = fleet.tenants / (REFRESHED_AFTER * fleet.token_seconds)
    per_second = {
        "check": fleet.instances * fleet.tenants / fleet.check_seconds,
        "check after a hint": fleet.instances * refreshes,
        "touch": fleet.instances * fleet.sessions * fleet.touches_per_ttl / fleet.session_ttl,
        "acquire": fleet.instances * refreshes,
        "commit": refreshes,
        "epoch": fleet.instances / EPOCH_CHECK_SECONDS,
        "heartbeat": fleet.instances / HEARTBEAT_SECONDS,
        "announcement": fleet.instances * refreshes,  # one for each instance that hears of a commit
    }
    loads = [Load(name, count, count * costs.microseconds[name] / 1e6) for name, count in per_second.items()]
    return sorted(loads, key=lambda load: load.cores, reverse=True)


def primary(fleet: Fleet, costs: Costs) -> Primary:
    """Return what one primary would need for a whole fleet, whether or not one can give it."""
    loads, connections = steady_loads(fleet, costs), fleet.instances * fleet.connections
    holders = fleet.instances * fleet.sessions / fleet.distinct_sessions
    uploads, reads = fleet.distinct_sessions * 1.0, 0.0
    if holders > 1:
        uploads *= min(holders, UPLOADS_OF_A_SHARED_SESSION)
        # Each instance reads its sessions in random order. When each has read this part, somebody has read every one.
        reads = fleet.instances * fleet.sessions * (1 - fleet.distinct_sessions ** (-1 / holders))
    tokens = fleet.instances * fleet.tenants
    return Primary(
        commands=sum(load.per_second for load in loads),
        cores=sum(load.cores for load in loads),
        connections=connections,
        gigabytes=(
            fleet.distinct_sessions * costs.session_bytes
            + fleet.tenants * costs.token_bytes
            + connections * OTHER_BYTES_A_CONNECTION
        )
        / 1e9,
        healing_seconds=(
            uploads * costs.microseconds["upload"]
            + reads * costs.microseconds["session read"]
            + fleet.tenants * (costs.microseconds["read"] + costs.microseconds["commit"])
            + UPLOADS_OF_TOKENS * tokens * costs.microseconds["check"]
        )
        / 1e6,
        deploy_seconds=fleet.instances * fleet.sessions * costs.microseconds["first sight, known"] / 1e6,
    )


def primaries_needed(one: Primary, *, cores: float, healing_seconds: float) -> int:
    """Return into how many primaries a cluster must be divided, so that none is busier and heals later than that.

    Each process connects to every primary, so more of them do not mean fewer connections for each.
    """
    return max(1, math.ceil(one.cores / cores), math.ceil(one.healing_seconds / healing_seconds))
