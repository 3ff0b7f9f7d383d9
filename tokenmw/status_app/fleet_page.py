"""The instances of the fleet on the page: those that are stale or disagree come first."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from tokenmw.status_app.html import counted, seconds_of, section, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["instances_section", "instances_summary"]

_MOST_ROWS: Final = 20
_DIFFERENCES: Final = {
    "version": "another version",
    "redis": "another state of Redis",
    "tokens": "an older token",
    "secret_key": "another secret_key",
}


def instances_summary(instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the summary says of the instances: nothing if all are well."""
    stale = sum(one["stale"] for one in instances)
    differ = sum(bool(one["differs"]) for one in instances)
    texts: list[str] = []
    if stale:
        texts.append(f"{_count(stale, len(instances))} {'is' if stale == 1 else 'are'} stale")
    if differ:
        texts.append(f"{_count(differ, len(instances))} {'disagrees' if differ == 1 else 'disagree'} with the others")
    return texts


def instances_section(report: Mapping[str, Any]) -> str:
    """Return the table of instances; nothing without Redis."""
    instances: Sequence[Mapping[str, Any]] = report["instances"]
    if not instances:
        return ""
    first = sorted(instances, key=lambda one: (not one["differs"], not one["stale"]))
    rows = [
        [
            _name(one),
            _heartbeat(one),
            escape(one["version"]),
            _shared(one),
            _differences(one),
            f"{counted(one['tokens'], 'token')}, {counted(one['sessions'], 'session')}" if one["host"] else "",
            _problems(one),
        ]
        for one in first[:_MOST_ROWS]
    ]
    names = ("Instance", "Heartbeat", "Version", "Redis", "Disagrees", "Has", "Problems")
    title = f"Instances: {len(instances)}"
    if report["redis"]["state"] != "up" and len(instances) == 1:
        title = "Instances: the others are not known"
    return section(title, names, rows, none="", left_out=len(instances) - len(rows), compact=True)


def _name(one: Mapping[str, Any]) -> str:
    if not one["host"]:
        return f"<code>{escape(one['instance'])}</code>"
    here = ' <span class="dim">(this one)</span>' if one["own"] else ""
    return f"{escape(one['host'])}, process {one['pid']}{here}"


def _heartbeat(one: Mapping[str, Any]) -> str:
    text = f"{seconds_of(one['age'])} ago"
    return f'<span class="warn">stale, {text}</span>' if one["stale"] else text


def _shared(one: Mapping[str, Any]) -> str:
    if not one["host"]:
        return ""
    return f'<span class="line">{state_of(one["shared"])} {seconds_of(one["shared_seconds"])}</span>'


def _differences(one: Mapping[str, Any]) -> str:
    texts = [_DIFFERENCES[name] for name in one["differs"]]
    if one["old_tokens"]:
        texts[-1] += f" of {', '.join(map(escape, one['old_tokens'][:3]))}"
    return f'<span class="warn">{", ".join(texts)}</span>' if texts else ""


def _problems(one: Mapping[str, Any]) -> str:
    numbers = {"failing": one["failing"], "not in Redis": one["unshared"]}
    return ", ".join(f"{number} {text}" for text, number in numbers.items() if number)


def _count(count: int, of: int) -> str:
    return f"{count} of {counted(of, 'instance')}"
