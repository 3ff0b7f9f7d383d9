"""`tokenmw invalidate`: drops a provider's token on all instances, and says which of them have confirmed it.

An instance has confirmed when a heartbeat that it wrote after the invalidation shows no token up to the version that is
invalid. An instance whose heartbeat cannot show that is never counted: it is named, with the reason.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.access import Access, Shared, audit, opened
from tokenmw.commands.instances import name_of, read_beats
from tokenmw.commands.running import CommandError, Output, progress, run_command
from tokenmw.commands.spans import span
from tokenmw.observe.events import TokenInvalidated
from tokenmw.redis.heartbeat import MAX_TOKENS
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import ClockMismatch, Found, Tombstoned
from tokenmw.runtime.fleet import digest_of
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.broker import TokenBroker
    from tokenmw.redis.fleet import Beat

__all__ = ["run_invalidate", "unconfirmed"]

_POLL: Final = 0.01  # seconds between the first reads of the heartbeats
_SLOWEST_POLL: Final = 0.5
_PRECISION: Final = 0.002  # seconds, of the time at which a heartbeat was written
_STALE: Final = 8.0  # seconds without a heartbeat


def run_invalidate(target: str, provider: str, *, wait: float, as_object: bool) -> int:
    """Invalidate a provider's token, wait for the instances, and return the exit code."""

    async def command(broker: TokenBroker) -> Output:
        async with opened(broker) as access:
            shared = access.provider(provider)
            before = await read_beats(access)
            tombstone = await _invalidate(access, shared)
            audit(access, "invalidate", provider, provider=provider)
            access.settings.observe(TokenInvalidated(provider, "operator"))
            async with progress("Waiting for the heartbeats of the instances"):
                return await _confirmed(access, shared, tombstone, before, wait=wait)

    return run_command("invalidate", target, command, as_object=as_object)


async def _invalidate(access: Access, shared: Shared) -> Tombstoned:
    """Make whatever token is stored or being fetched invalid."""
    try:
        now = await access.store.server_time(shared.keys)
        reply = await access.store.write_tombstone(shared.keys, version=None, known=now, left=MAX_LIFETIME)
    except Unreadable:
        reply = None
    if isinstance(reply, Tombstoned):
        return reply
    if isinstance(reply, ClockMismatch):
        why = "the clock of the server of Redis was changed meanwhile"
    else:
        unknown = "" if isinstance(reply, Found) else ", sealed with a secret that this configuration does not have"
        why = f"another process has stored a newer token meanwhile{unknown}"
    raise CommandError(f"{shared.name}: nothing was changed, because {why}. Try again.")


async def _confirmed(
    access: Access, shared: Shared, tombstone: Tombstoned, before: Sequence[Beat], *, wait: float
) -> Output:
    loop = asyncio.get_running_loop()
    began, pause = loop.time(), _POLL
    digest = digest_of(shared.entry)
    known = {beat.instance: beat for beat in before}
    while True:
        beats = {beat.instance: beat for beat in await read_beats(access)}
        known |= beats  # also those that have started meanwhile
        waiting = {
            instance: why
            for instance, beat in known.items()
            if (why := unconfirmed(beats.get(instance), digest, tombstone)) is not None
        }
        took = loop.time() - began
        if not waiting or took >= wait:
            break
        await asyncio.sleep(min(pause, max(0.0, wait - took)))
        pause = min(_SLOWEST_POLL, pause * 1.5)
    count, total = len(known) - len(waiting), len(known)
    lines = [f"{shared.name}: tokens up to version {tombstone.version} are invalid in Redis"]
    if not known:
        lines.append("no instance has a heartbeat in Redis: whichever starts, or has none, reads it in Redis")
    elif waiting:
        lines.append(f"{count} of {total} instances confirmed within {span(wait)}; not confirmed:")
        lines += [f"  {name_of(known[instance])}  {why}" for instance, why in waiting.items()]
    else:
        lines.append(f"{count} of {total} instances confirmed in {span(took)}")
    rows: list[dict[str, Any]] = [
        {"instance": one.instance, "name": name_of(one), "confirmed": one.instance not in waiting}
        | ({"reason": waiting[one.instance]} if one.instance in waiting else {})
        for one in known.values()
    ]
    data = {
        "provider": shared.name,
        "tombstone": tombstone.version,
        "confirmed": count,
        "instances": rows,
        "seconds": took,
    }
    return Output(lines, data, 2 if waiting else 0)


def unconfirmed(beat: Beat | None, digest: str, tombstone: Tombstoned) -> str | None:
    """Return why an instance has not confirmed; None if it has.

    Args:
        beat: Its last heartbeat; None if Redis has none any more.
        digest: What heartbeats call the credential.
        tombstone: What is invalid, and since when.
    """
    if beat is None:
        return "its heartbeat has disappeared: it has stopped, or does not reach Redis"
    said = beat.heartbeat
    if said is None:
        return "its heartbeat is sealed with a secret that this configuration does not have"
    version = said.tokens.get(digest)
    if version is not None and version > tombstone.version:
        return None  # it has the next token already
    if beat.written <= tombstone.at + _PRECISION:
        stale = beat.age > _STALE
        return f"its last heartbeat is {span(beat.age)} old: " + ("it hangs or has stopped" if stale else "wait")
    if version is None and len(said.tokens) >= MAX_TOKENS:
        return f"its heartbeat shows {MAX_TOKENS} other providers, and no more"
    return "it still has the token" if version else None
