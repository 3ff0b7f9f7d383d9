"""`tokenmw rotate`: what is sealed with which secret, so that one knows when an old secret may be removed.

It changes nothing. Redis reseals by itself: a token at its next refresh, or when a process reads it, and a session at
its next touch. Whatever nobody touches expires, so that a time is known after which an old secret is not needed.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.access import opened
from tokenmw.commands.report import Finding, as_text, exit_code
from tokenmw.commands.running import Output, progress, run_command
from tokenmw.connections.store import StoreUnavailable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.key_usage import KeyUsage, count_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenmw.broker import TokenBroker
    from tokenmw.commands.access import Access
    from tokenmw.connections.store import ConnectionKey
    from tokenmw.runtime.settings import Settings

__all__ = ["run_rotate", "verdicts"]

_PLAIN: Final = bytes(4)
_CONNECTIONS: Final = "users' connections"
_ONE: Final = {
    "tokens": "token",
    "sessions": "session",
    "failure notes": "failure note",
    "pairs of users' tokens": "pair of a user's tokens",
    "heartbeats of instances": "heartbeat of an instance",
    _CONNECTIONS: "connection of a user",
}
_PAGE: Final = 100
_KEY_ID: Final = slice(9, 13)  # of a value's header
_NEEDS_SCAN: Final = "This user may not run SCAN, which only this command needs: ACL SETUSER <user> +scan"
_RENAMES: Final = (
    "there is no name_key=…, so that names in Redis follow the last secret: if it is removed, all keys are renamed, "
    "and tokens are fetched again. Give name_key= the secret that was used first."
)


def run_rotate(target: str, *, as_object: bool) -> int:
    """Count the values by secret, print which secrets may be removed, and return the exit code."""

    async def command(broker: TokenBroker) -> Output:
        settings = broker._settings
        async with opened(broker, writes=False) as access:
            found, usage = await _counted(access)
        if usage is not None:
            found += verdicts(usage, settings, now=time.time())
        data = {"secrets": _data(usage or {}, settings), "findings": [_as_dict(one) for one in found]}
        return Output([as_text(found)], data, exit_code(found))

    return run_command("rotate", target, command, as_object=as_object)


async def _counted(access: Access) -> tuple[list[Finding], dict[bytes, KeyUsage] | None]:
    """Return what was found about Redis and the store, and the counts by key id; None if the keys cannot be read."""
    began = time.monotonic()
    visited = 0

    def note(count: int) -> None:
        nonlocal visited
        visited = count

    try:
        async with progress("Reading the keys of the namespace"):
            usage = await count_values(access.redis, access.settings.names, on_step=note)
    except RedisUnavailable as error:
        if error.reason == "permission" and not await access.problem():
            return [Finding("FAIL", "redis", _NEEDS_SCAN)], None
        raise
    took = time.monotonic() - began
    findings = [Finding("ok", "redis", f"{access.redis.address}: {visited} keys read in {took:.1f} s")]
    failed = await _count_connections(access.settings, usage)
    return findings if failed is None else [*findings, failed], usage


async def _count_connections(settings: Settings, usage: dict[bytes, KeyUsage]) -> Finding | None:
    """Count the connections in the store of the program's; they do not expire. Return what prevented it."""
    if settings.connections is None:
        return None
    store, after = settings.connections.store, None
    try:
        while True:
            async with asyncio.timeout(settings.limits.store_seconds):
                page = await store.scan(after=after, limit=_PAGE)
            for _key, stored in page:
                usage.setdefault(stored.value[_KEY_ID], KeyUsage()).add(_CONNECTIONS, None)
            if len(page) < _PAGE:
                break
            last: ConnectionKey = page[-1][0]
            after = last
    except StoreUnavailable as error:
        return Finding("FAIL", "connections", f"{error}")
    except Exception as error:  # noqa: BLE001  a store is the program's own, and its text may have a password
        return Finding("FAIL", "connections", f"the store does not answer ({type(error).__name__})")
    finally:
        await store.aclose()
    return None


def verdicts(usage: Mapping[bytes, KeyUsage], settings: Settings, *, now: float) -> Iterator[Finding]:
    """Yield a line for each secret of `secret_key`, and for what is sealed with none of them.

    Args:
        usage: What is sealed under each key id.
        settings: The options of the broker.
        now: The time, in seconds since 1970.
    """
    ids = settings.sealer.key_ids
    rest = dict(usage)
    for position, key_id in enumerate(ids):
        found, subject = rest.pop(key_id, None), f"secret_key[{position}]"
        if position == 0:
            yield Finding("ok", subject, f"seals what is written: {_counts(found)}")
        elif found is None:
            yield Finding("ok", subject, "seals nothing: if it is an old secret, it may be removed")
        else:
            yield Finding("WARN", subject, f"must stay: {_counts(found)}. {_until(found, now)}")
    if settings.names_follow_secrets:
        yield Finding("WARN", "name_key", _RENAMES)
    plain, foreign = rest.pop(_PLAIN, None), rest.pop(b"", None)
    if not ids:
        yield Finding(
            "ok", "secret_key", f"values are not sealed, so that there is nothing to rotate: {_counts(plain)}"
        )
    elif plain is not None:
        yield Finding(
            "WARN", "not sealed", f"{_counts(plain)}: instances with a secret delete them when they read them"
        )
    if rest:
        secrets = "a secret" if len(rest) == 1 else f"{len(rest)} secrets"
        merged = "; ".join(_counts(found) for found in rest.values())
        text = f"{merged} are sealed with {secrets} that this configuration does not have. Put it into secret_key=[…]."
        yield Finding("FAIL", "unknown", text)
    if foreign is not None:
        yield Finding("WARN", "damaged", f"{_counts(foreign)}: find out what else writes below the namespace")


def _until(found: KeyUsage, now: float) -> str:
    if _CONNECTIONS in found.counts:
        return "Connections do not expire: run `await broker.connections.reseal()` once, then this command again."
    if found.without_expiry:
        return f"{found.without_expiry} of them never expire: something else has removed their TTL."
    seconds = found.longest or 0.0
    at = datetime.fromtimestamp(now + seconds, UTC)
    return (
        f"The last one expires in {seconds:.0f} s at the latest, at {at:%Y-%m-%d %H:%M:%S} UTC, if each instance has "
        "this secret_key by now. Run this command again before the secret is removed."
    )


def _counts(found: KeyUsage | None) -> str:
    if found is None:
        return "nothing yet"
    return ", ".join(f"{count} {_ONE[kind] if count == 1 else kind}" for kind, count in sorted(found.counts.items()))


def _data(usage: Mapping[bytes, KeyUsage], settings: Settings) -> list[dict[str, Any]]:
    names = {key_id: f"secret_key[{position}]" for position, key_id in enumerate(settings.sealer.key_ids)}
    names |= {_PLAIN: "not sealed", b"": "damaged"}
    found: list[dict[str, Any]] = []
    for key_id, one in usage.items():
        name = names.get(key_id, "unknown")
        found.append({"secret": name, "counts": one.counts, "expire_in": one.longest, "never": one.without_expiry})
    return sorted(found, key=lambda row: row["secret"])


def _as_dict(finding: Finding) -> dict[str, str]:
    return {"result": finding.result, "subject": finding.subject, "text": finding.text}
