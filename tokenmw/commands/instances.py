"""The instances of a fleet, as their heartbeats in Redis show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.commands.running import CommandError
from tokenmw.commands.spans import span
from tokenmw.redis.fleet import FleetStore
from tokenmw.runtime.fleet import digest_of
from tokenmw.runtime.fleet_status import instances_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.commands.access import Access, Shared
    from tokenmw.redis.fleet import Beat
    from tokenmw.status import InstanceStatus

__all__ = ["instance_lines", "instance_rows", "name_of", "read_beats", "read_instances"]


async def read_beats(access: Access) -> list[Beat]:
    """Return the heartbeats of all instances. Raises `RedisUnavailable`."""
    settings = access.settings
    return await FleetStore(access.redis, names=settings.names, sealer=settings.sealer).read()


async def read_instances(access: Access) -> Sequence[InstanceStatus]:
    """Return all instances, the stale ones and those that disagree marked. Raises `RedisUnavailable`."""
    names = {digest_of(one.entry): one.name for one in _shared(access)}
    check_seconds = access.settings.limits.check_seconds
    return instances_of(await read_beats(access), own="", names=names, check_seconds=check_seconds)


def _shared(access: Access) -> list[Shared]:
    found: list[Shared] = []
    for name in access.broker._credentials.names:
        try:
            found.append(access.provider(name))
        except CommandError:
            continue  # it depends on the request, or is not shared
    return found


def name_of(beat: Beat) -> str:
    """Return how an instance is shown: its host and process, or, if its heartbeat does not open, its own name."""
    said = beat.heartbeat
    return f"instance {beat.instance}" if said is None else f"{said.host}:{said.pid}"


def instance_lines(instances: Sequence[InstanceStatus]) -> list[str]:
    """Return the instances as text: a line with their number, and one for each."""
    stale = sum(one.stale for one in instances)
    lines = [f"instances {len(instances)}" + (f", {stale} stale" if stale else "")]
    width = max((len(_name(one)) for one in instances), default=0)
    return lines + [f"  {_name(one):<{width}}  {_said(one)}" for one in instances]


def instance_rows(instances: Sequence[InstanceStatus]) -> list[dict[str, Any]]:
    """Return the instances as JSON."""
    return [
        {
            "instance": one.instance,
            "host": one.host,
            "pid": one.pid,
            "version": one.version,
            "started_at": one.started_at,
            "redis": one.shared,
            "redis_seconds": one.shared_seconds,
            "tokens": one.tokens,
            "sessions": one.sessions,
            "unshared": one.unshared,
            "failing": one.failing,
            "heartbeat_age": one.age,
            "stale": one.stale,
            "differs": list(one.differs),
            "old_tokens": list(one.old_tokens),
        }
        for one in instances
    ]


def _name(one: InstanceStatus) -> str:
    return f"{one.host}:{one.pid}" if one.host else f"instance {one.instance}"


def _said(one: InstanceStatus) -> str:
    mark = "STALE, " if one.stale else ""
    beat = f"{mark}heartbeat {span(one.age)} ago"
    if not one.host:
        return f"{beat}; sealed with a secret that this configuration does not have"
    parts = [
        beat,
        f"version {one.version}",
        f"redis {one.shared} for {span(one.shared_seconds)}",
        f"{one.tokens} {'token' if one.tokens == 1 else 'tokens'}",
        f"{one.sessions} {'session' if one.sessions == 1 else 'sessions'}",
    ]
    parts += [f"{count} {what}" for count, what in ((one.unshared, "unshared"), (one.failing, "failing")) if count]
    if one.differs:
        old = f" ({', '.join(one.old_tokens)})" if one.old_tokens else ""
        parts.append(f"DIFFERS in {', '.join(one.differs)}{old}")
    return ", ".join(parts)
