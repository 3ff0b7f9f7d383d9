"""`tokenmw retry`: ends the backoff of a provider on all instances, and shows what its next answer is.

This process does not ask the provider: its machine may have another network than the instances.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.access import Access, Shared, audit, opened, operator
from tokenmw.commands.instances import read_beats
from tokenmw.commands.running import Output, progress, run_command
from tokenmw.commands.spans import span
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.token_facts import TokenFacts, read_facts
from tokenmw.tokens.failures import Failure
from tokenmw.tokens.reporting import reason_of

if TYPE_CHECKING:
    from tokenmw.broker import TokenBroker

__all__ = ["run_retry"]

_POLL: Final = 0.05  # seconds
_MORE: Final = 2.0  # seconds beyond the longest refresh, for the hint and the poll of the others


def run_retry(target: str, provider: str, *, wait: float | None, as_object: bool) -> int:
    """End the backoff of a provider, wait for an answer of it, and return the exit code."""

    async def command(broker: TokenBroker) -> Output:
        async with opened(broker) as access:
            shared = access.provider(provider)
            (before,) = await read_facts(access.redis, access.settings.sealer, [shared.keys])
            await access.store.write_retry(shared.keys, operator())
            audit(access, "retry", provider, provider=provider)
            seconds = access.settings.limits.lease_seconds + _MORE if wait is None else wait
            async with progress("Waiting for an instance to ask the provider"):
                return await _outcome(access, shared, before, seconds=seconds)

    return run_command("retry", target, command, as_object=as_object)


async def _outcome(access: Access, shared: Shared, before: TokenFacts | RedisUnavailable, *, seconds: float) -> Output:
    loop = asyncio.get_running_loop()
    began, known = loop.time(), 0 if isinstance(before, RedisUnavailable) else before.version
    facts: TokenFacts | RedisUnavailable = before
    while True:
        (facts,) = await read_facts(access.redis, access.settings.sealer, [shared.keys])
        took = loop.time() - began
        if isinstance(facts, TokenFacts) and (facts.version > known or facts.note_left is not None):
            break
        if took >= seconds:
            break
        await asyncio.sleep(_POLL)
    instances = len(await read_beats(access))
    name = shared.name
    lines = [f"{name}: the backoff has ended on all instances that reach Redis ({instances} have a heartbeat)"]
    data: dict[str, Any] = {"provider": name, "instances": instances, "seconds": took}
    if isinstance(facts, TokenFacts) and facts.version > known:
        lines.append(f"a new token was stored after {span(took)}, version {facts.version}")
        return Output(lines, {**data, "outcome": "renewed", "version": facts.version})
    if isinstance(facts, TokenFacts) and facts.note_left is not None:
        reason, text = _noted(facts, facts.note_left)
        lines.append(f"the provider failed again after {span(took)}: {reason}: {text}")
        return Output(lines, {**data, "outcome": "failed", "reason": reason, "text": text}, 1)
    lines.append(
        f"no instance has asked the provider within {span(seconds)}: none of them was in a backoff, or none is running"
    )
    return Output(lines, {**data, "outcome": "not asked"}, 2)


def _noted(facts: TokenFacts, left: float) -> tuple[str, str]:
    if facts.note is None:
        return "unknown", "the failure note does not open with this configuration"
    failure = Failure.from_note(facts.note, left=left, before=None, now=0.0)
    return reason_of(failure), failure.detail
