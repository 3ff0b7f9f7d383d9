"""`tokenmw inspect`: what Redis has of each provider's token, and which instances share it. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.access import Access, Shared, opened
from tokenmw.commands.instances import instance_lines, instance_rows, read_instances
from tokenmw.commands.running import CommandError, Output, progress, run_command
from tokenmw.commands.spans import span
from tokenmw.providers.answer import number
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.token_facts import TokenFacts, read_facts
from tokenmw.tokens.entry import TokenEntry
from tokenmw.tokens.failures import Failure
from tokenmw.tokens.reporting import reason_of
from tokenmw.values import windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.broker import TokenBroker

__all__ = ["inspected", "run_inspect"]

_UNREADABLE: Final = {
    "unknown-key": "sealed with a secret that this configuration does not have: put it into secret_key=[…]",
    "damaged": "damaged: the next instance that reads it deletes it; find out what else writes below the namespace",
}
_EARLIEST: Final = 0.8  # of the refresh window: an instance draws its refresh point between this and 1


def run_inspect(target: str, provider: str | None, *, as_object: bool) -> int:
    """Show what Redis has of one provider, or of all, and return the exit code."""

    async def command(broker: TokenBroker) -> Output:
        async with opened(broker, writes=False) as access, progress(f"Reading from {access.redis.address}"):
            return await inspected(access, None if provider is None else [provider])

    return run_command("inspect", target, command, as_object=as_object)


async def inspected(access: Access, names: Sequence[str] | None) -> Output:
    """Return what Redis has of some providers, or of all whose token is shared.

    Raises:
        CommandError: There is no such provider.
        RedisUnavailable: Redis cannot be asked.
    """
    shared, others = _chosen(access, names)
    found = await read_facts(access.redis, access.settings.sealer, [one.keys for one in shared])
    lines = [f"redis {access.redis.address}, namespace {access.settings.names.namespace}"]
    rows: list[dict[str, Any]] = []
    exit_code = 0
    for one, facts in zip(shared, found, strict=True):
        row = _row(one, facts)
        rows.append(row)
        lines += ["", *_lines(row)]
        exit_code = _worse(exit_code, _result(row))
    for name, why in others:
        rows.append({"provider": name, "state": "not shared", "reason": why})
        lines += ["", f"provider {name}", f"  {'token':<10} {why}"]
    instances = await read_instances(access)
    lines += ["", *instance_lines(instances)]
    if any(one.stale or one.differs for one in instances):
        exit_code = _worse(exit_code, 2)
    data = {
        "redis": access.redis.address,
        "namespace": access.settings.names.namespace,
        "providers": rows,
        "instances": instance_rows(instances),
    }
    return Output(lines, data, exit_code)


def _chosen(access: Access, names: Sequence[str] | None) -> tuple[list[Shared], list[tuple[str, str]]]:
    """Return the providers whose token is shared; and, if all were asked for, why the others have none in Redis."""
    if names is not None:
        return [access.provider(name) for name in names], []
    shared: list[Shared] = []
    others: list[tuple[str, str]] = []
    for name in access.broker._credentials.names:
        try:
            shared.append(access.provider(name))
        except CommandError:
            entry = access.broker._credentials.find(name)
            depends = not isinstance(entry, TokenEntry)
            others.append((name, "depends on the request" if depends else "not shared: each process has its own"))
    return shared, others


def _row(one: Shared, facts: TokenFacts | RedisUnavailable) -> dict[str, Any]:
    if isinstance(facts, RedisUnavailable):
        return {"provider": one.name, "state": "unknown", "reason": "its server in the cluster does not answer"}
    row: dict[str, Any] = {"provider": one.name, "state": _state(facts), "token": _token(one, facts)}
    row["lease"] = None if facts.lease_left is None else {"left": facts.lease_left}
    row["failure"] = _failure(facts)
    row["tombstone"] = {"version": facts.tombstone, "left": facts.tombstone_left} if facts.tombstone else None
    return row


def _state(facts: TokenFacts) -> str:
    if facts.unreadable:
        return "unreadable"
    if facts.record is not None and facts.left is not None and facts.version > facts.tombstone:
        return "valid"
    return "none" if facts.note_left is None else "failing"


def _token(one: Shared, facts: TokenFacts) -> dict[str, Any] | None:
    if facts.unreadable:
        return {"version": facts.version, "unreadable": facts.unreadable, "left": facts.left}
    record, left = facts.record, facts.left
    if record is None or left is None:
        return None
    left = min(left, record.lifetime)
    provider = one.entry.provider
    window = windows(
        record.lifetime,
        refresh_before=provider.refresh_before,
        renewal_window=provider.renewal_window,
        refresh_in=number(record.extra.get("refresh_in")),
    )
    latest = window.refresh if record.no_refresh_until is None else min(window.refresh, record.no_refresh_until)
    return {
        "version": facts.version,
        "age": record.lifetime - left,
        "left": left,
        "lifetime": record.lifetime,
        "refresh_from": left - max(window.stop, latest),
        "refresh_until": left - max(window.stop, min(latest, _EARLIEST * window.refresh)),
        "current_key": facts.current_seal,
    }


def _failure(facts: TokenFacts) -> dict[str, Any] | None:
    if facts.note_left is None:
        return None
    if facts.note is None:
        return {"reason": "", "text": "the note does not open with this configuration", "left": facts.note_left}
    failure = Failure.from_note(facts.note, left=facts.note_left, before=None, now=0.0)
    return {
        "reason": reason_of(failure),
        "text": failure.detail,
        "attempts": failure.count,
        "reported_by": failure.writer,
        "left": facts.note_left,
    }


def _result(row: dict[str, Any]) -> int:
    if row["state"] in {"unreadable", "failing", "unknown"}:
        return 1
    return 2 if row["failure"] is not None else 0


def _worse(one: int, other: int) -> int:
    return max(one, other, key=(0, 2, 1).index)


def _lines(row: dict[str, Any]) -> list[str]:
    lines = [f"provider {row['provider']}"]
    if row["state"] == "unknown":
        return [*lines, _line("token", f"unknown: {row['reason']}")]
    token, lease, failure, tombstone = row["token"], row["lease"], row["failure"], row["tombstone"]
    if token is None:
        lines.append(_line("token", "none"))
    elif "unreadable" in token:
        lines.append(_line("token", f"version {token['version']}, {_UNREADABLE[token['unreadable']]}"))
    else:
        invalid = "" if row["state"] == "valid" else "; invalid, below the tombstone"
        old = "" if token["current_key"] else "; sealed with an older secret"
        lines += [
            _line(
                "token",
                f"version {token['version']}, age {span(token['age'])}, {span(token['left'])} left of "
                f"{span(token['lifetime'])}{invalid}{old}",
            ),
            _line("refresh", _refresh(token["refresh_from"], token["refresh_until"])),
        ]
    held = "none" if lease is None else f"a process fetches a token; it has {span(lease['left'])} left"
    lines.append(_line("lease", held))
    if failure is None:
        lines.append(_line("failure", "none"))
    else:
        count = f", attempt {failure['attempts']}" if failure.get("attempts") else ""
        by = f", by {failure['reported_by']}" if failure.get("reported_by") else ""
        reason = f"{failure['reason']}: " if failure["reason"] else ""
        lines.append(
            _line("failure", f"{reason}{failure['text']}{count}{by}; the note expires in {span(failure['left'])}")
        )
    lines.append(
        _line(
            "tombstone",
            "none"
            if tombstone is None
            else f"versions up to {tombstone['version']} are invalid, {_until(tombstone['left'])}",
        )
    )
    return lines


def _line(name: str, text: str) -> str:
    return f"  {name:<10} {text}"


def _refresh(earliest: float, latest: float) -> str:
    if latest <= 0:
        return f"due for {span(-latest)}"
    return f"due in {span(max(0.0, earliest))} to {span(latest)}, with each instance's jitter"


def _until(left: float | None) -> str:
    return "without an end" if left is None else f"for {span(left)}"
