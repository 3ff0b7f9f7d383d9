"""Checks the Redis of a broker: whether it can be used, and how it is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.report import Finding
from tokenmw.redis.server_facts import ServerFacts, ServerProblem, read_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenmw.runtime.runtime import Runtime
    from tokenmw.runtime.settings import Settings

__all__ = ["CONNECTIONS", "check_redis", "findings_of"]

CONNECTIONS: Final = 4
"""Connections that one process has: three for commands, and one for hints."""
_SECONDS: Final = 5.0


async def check_redis(runtime: Runtime, settings: Settings, *, processes: int) -> list[Finding]:
    """Return what was found about the servers of an open broker."""
    if runtime.redis is None:
        return [Finding("ok", "redis", "none: each process fetches its own tokens")]
    try:
        servers = await read_servers(runtime.redis.client, names=settings.names, hints=settings.hints, seconds=_SECONDS)
    except ServerProblem as problem:
        return [Finding("FAIL", "redis", str(problem))]
    return [finding for facts in servers for finding in findings_of(facts, processes=processes)]


def findings_of(facts: ServerFacts, *, processes: int) -> Iterator[Finding]:
    """Yield the lines of one server that works."""
    info, address = facts.info, facts.address
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "of unknown version")
    yield Finding(
        "ok",
        "redis",
        f"{address}: {name} {version}, round trip {facts.round_trip * 1000:.1f} ms; scripts work, and the ACL allows "
        "the commands that were tried",
    )
    if facts.plain:
        yield Finding(
            "WARN",
            "redis",
            f"{address}: commands and the password cross the network without TLS. Use rediss:// and a port with TLS, "
            "unless the network encrypts.",
        )
    yield _persistence(info, address)
    yield _eviction(info, address)
    most = info.get("maxclients")
    if most is not None:
        needed = processes * CONNECTIONS
        text = (
            f"{address}: maxclients is {most}; {processes} processes with {CONNECTIONS} connections each need {needed}"
        )
        if needed > int(most):
            yield Finding("WARN", "redis", f"{text}. Raise it: CONFIG SET maxclients {2 * needed}.")
        else:
            yield Finding("ok", "redis", text)


def _persistence(info: Any, address: str) -> Finding:
    log = "on" if info.get("aof_enabled") else "off"
    return Finding(
        "ok",
        "redis",
        f"{address}: append-only file is {log}; what a restart loses, the instances upload again",
    )


def _eviction(info: Any, address: str) -> Finding:
    policy = info.get("maxmemory_policy", "")
    if policy in ("", "noeviction"):
        return Finding("ok", "redis", f"{address}: eviction policy is {policy or 'not known'}")
    return Finding(
        "WARN",
        "redis",
        f"{address}: eviction policy is {policy}: when memory is full, tokens and session ids are evicted. Use "
        "CONFIG SET maxmemory-policy noeviction.",
    )
