"""Compares the heartbeats of a fleet: which instances are stale, and which disagree with the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from tokenmw.status import InstanceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tokenmw.redis.fleet import Beat
    from tokenmw.redis.heartbeat import Heartbeat

__all__ = ["instances_of"]

_STALE: Final = 8.0  # seconds: one heartbeat was left out, and the next one is late
_MORE: Final = 10.0  # seconds that an older token may last beyond the check: for the round, and until the heartbeat


def instances_of(
    beats: Sequence[Beat], *, own: str, names: Mapping[str, str], check_seconds: float
) -> tuple[InstanceStatus, ...]:
    """Return the status of each instance, the own one first, then by host and process.

    Args:
        beats: The heartbeats.
        own: The instance that asks.
        names: The names of its providers, by what heartbeats call their credentials.
        check_seconds: Within which an instance notices that its token is not the newest one.
    """
    said = [beat.heartbeat for beat in beats if beat.heartbeat is not None]
    version = _most(said, lambda one: one.version)
    shared = _most(said, lambda one: one.shared)
    newest: dict[str, int] = {}
    for one in said:
        for digest, token in one.tokens.items():
            newest[digest] = max(newest.get(digest, 0), token)
    found: list[InstanceStatus] = []
    for beat in beats:
        heartbeat = beat.heartbeat
        if heartbeat is None:
            found.append(_unreadable(beat, own=own))
            continue
        # A version is the time, in microseconds, at which the token was asked for, by the clock of the server.
        old = [
            digest
            for digest, token in heartbeat.tokens.items()
            if 0 < token < newest[digest] and beat.written - newest[digest] / 1_000_000 > check_seconds + _MORE
        ]
        differences = {
            "version": heartbeat.version != version,
            "redis": heartbeat.shared != shared,
            "tokens": bool(old),
        }
        counts = heartbeat.counts
        found.append(
            InstanceStatus(
                instance=beat.instance,
                own=beat.instance == own,
                host=heartbeat.host,
                pid=heartbeat.pid,
                version=heartbeat.version,
                started_at=heartbeat.started_at,
                shared=heartbeat.shared,
                shared_seconds=heartbeat.shared_seconds + beat.age,
                tokens=counts.get("tokens", 0),
                sessions=counts.get("sessions", 0),
                unshared=counts.get("unshared", 0),
                failing=counts.get("failing", 0),
                age=beat.age,
                stale=beat.age > _STALE,
                differs=tuple(name for name, differs in differences.items() if differs),
                old_tokens=tuple(names[digest] for digest in old if digest in names),
            )
        )
    return tuple(sorted(found, key=lambda one: (not one.own, one.host, one.pid, one.instance)))


def _most(said: Sequence[Heartbeat], value: Callable[[Heartbeat], str]) -> str:
    """Return the most common value; of several, the one of the instance that was started last."""
    counts = Counter(map(value, said))
    return value(max(said, key=lambda one: (counts[value(one)], one.started_at))) if said else ""


def _unreadable(beat: Beat, *, own: str) -> InstanceStatus:
    return InstanceStatus(
        instance=beat.instance,
        own=beat.instance == own,
        host="",
        pid=0,
        version="",
        started_at=0.0,
        shared="unknown",
        shared_seconds=0.0,
        tokens=0,
        sessions=0,
        unshared=0,
        failing=0,
        age=beat.age,
        stale=beat.age > _STALE,
        differs=("secret_key",),
    )
