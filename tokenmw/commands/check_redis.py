"""Checks the Redis of a broker: whether it can be used, and how it is configured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.report import Finding
from tokenmw.providers.x509_dates import validity_of
from tokenmw.redis.server_facts import ServerFacts, ServerProblem, TLSFacts, read_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenmw.runtime.runtime import Runtime
    from tokenmw.runtime.settings import Settings

__all__ = ["CONNECTIONS", "check_redis", "findings_of"]

CONNECTIONS: Final = 4
"""Connections that one process has: three for commands, and one for hints."""
_SECONDS: Final = 5.0
_DAY: Final = 86_400.0
_FEW_DAYS: Final = 21.0
_FOREIGN: Final = (
    "a heartbeat that is sealed with a secret that this configuration does not have. Give all instances the same "
    "secret_key=…."
)


async def check_redis(runtime: Runtime, settings: Settings, *, processes: int) -> list[Finding]:
    """Return what was found about the servers of an open broker, for `processes`, or as many as run already."""
    if runtime.redis is None:
        return [Finding("ok", "redis", "none: each process fetches its own tokens")]
    try:
        servers = await read_servers(runtime.redis.client, names=settings.names, hints=settings.hints, seconds=_SECONDS)
    except ServerProblem as problem:
        return [Finding("FAIL", "redis", str(problem))]
    others = [] if runtime.fleet is None else [one for one in await runtime.fleet.read() if not one.own]
    running = len(others)
    shared = max(processes, running)
    found = [finding for facts in servers for finding in findings_of(facts, processes=shared)]
    foreign = sum(not one.host for one in others)
    if running > foreign:
        count = _instances(running - foreign)
        found.append(Finding("ok", "redis", f"{count} a heartbeat: `tokenmw inspect` shows them"))
    if foreign:
        found.append(Finding("WARN", "redis", f"{_instances(foreign)} {_FOREIGN}"))
    return found


def _instances(count: int) -> str:
    return "1 instance has" if count == 1 else f"{count} instances have"


def findings_of(facts: ServerFacts, *, processes: int) -> Iterator[Finding]:
    """Yield the lines of one server that works."""
    info, address = facts.info, facts.address
    if facts.replica:
        yield from _room(facts, processes=processes, each=1, what=f"{address}, a replica")
        return
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "of unknown version")
    yield Finding("ok", "redis", f"{address}: {name} {version}, round trip {facts.round_trip * 1000:.1f} ms")
    yield from _scripts(facts)
    if facts.plain:
        yield Finding(
            "WARN",
            "redis",
            f"{address}: commands and the password cross the network without TLS. Use rediss:// and a port with TLS, "
            "unless the network encrypts.",
        )
    if facts.tls is not None:
        yield from _tls(facts.tls, address)
    yield _persistence(info, address)
    yield _eviction(info, address)
    yield from _room(facts, processes=processes, each=CONNECTIONS, what=address)


def _scripts(facts: ServerFacts) -> Iterator[Finding]:
    address, works = facts.address, facts.scripts - len(facts.failed)
    if facts.failed:
        text = f"{works} of {facts.scripts} scripts work; not {', '.join(facts.failed)}. Use Redis 6.2 or Valkey."
        yield Finding("FAIL", "redis", f"{address}: {text}")
    elif facts.by_text:
        yield Finding(
            "WARN",
            "redis",
            f"{address}: scripts work, but EVALSHA does not find one that was loaded, so that each call sends its "
            "text. Find out what between this process and Redis changes the server.",
        )
    else:
        text = f"{works} of {facts.scripts} scripts work by EVALSHA, and the ACL allows the commands that were tried"
        yield Finding("ok", "redis", f"{address}: {text}")


def _tls(tls: TLSFacts, address: str) -> Iterator[Finding]:
    if not tls.verified:
        fix = (
            "the server's certificate is not verified. Give its CA as ?ssl_ca_certs=, and leave ssl_cert_reqs=none out."
        )
        yield Finding("WARN", "redis", f"{address}: {fix}")
    try:
        _, ends = validity_of(tls.certificate or b"")
    except ValueError:
        yield Finding("WARN", "redis", f"{address}: {tls.version}; the end of its certificate is not known")
        return
    days = (ends - time.time()) / _DAY
    text = f"{address}: {tls.version}, its certificate expires in {days:.0f} days"
    if days < _FEW_DAYS:
        yield Finding("WARN", "redis", f"{text}. Renew it: no new connection can be made after that.")
    else:
        yield Finding("ok", "redis", text)


def _room(facts: ServerFacts, *, processes: int, each: int, what: str) -> Iterator[Finding]:
    """Yield whether a server has room for the connections of all processes."""
    most, now = facts.info.get("maxclients"), facts.info.get("connected_clients")
    if most is None:
        return
    needed = processes * each
    present = "" if now is None else f"; {now} are connected now"
    who = "1 process" if processes == 1 else f"{processes} processes"
    connections = f"{each} connection" if each == 1 else f"{each} connections"
    text = f"{what}: maxclients is {most}; {who} with {connections} each need {needed}{present}"
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
