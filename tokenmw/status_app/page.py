"""The page: a report as HTML, for phones and desktops, by keyboard and screen reader."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from tokenmw.status_app.events_page import events_section
from tokenmw.status_app.fleet_page import instances_section, instances_summary
from tokenmw.status_app.html import counted, due, duration, outages_strip, seconds_of, section, state_of, time_of
from tokenmw.status_app.style import SCRIPT, STYLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["fragment", "page", "summary"]

_MOST_ROWS: Final = 50
_RELOAD: Final = 5  # seconds, without scripts
_ORDER: Final = {"failing": 0, "aging": 1, "cold": 2, "fresh": 3, "per request": 4}


def page(report: Mapping[str, Any], *, base: str, actions: str, notice: str) -> str:
    """Return the whole page.

    Args:
        report: The report.
        base: The path at which the application is mounted, without a slash at the end.
        actions: The forms as HTML; "" if the request may not act.
        notice: What an action has done; "" for nothing.
    """
    level, text = summary(report)
    noticed = f'<p role="status"><strong>{escape(notice)}</strong></p>' if notice else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>tokenmw status</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
        f'<noscript><meta http-equiv="refresh" content="{_RELOAD}"></noscript></head>'
        f'<body data-events="{escape(base)}/events"><a class="skip" href="#live">Skip to the status</a>'
        f"<header><h1>tokenmw status</h1>"
        f'<p class="dim">Version {escape(report["version"])}, process {report["pid"]} on {escape(report["host"])}. '
        f'<span id="connection">Reloads every {_RELOAD} s.</span></p>'
        f'<p id="summary" role="status" aria-live="polite" class="{level}">{escape(text)}</p>{noticed}</header>'
        f'<main><div id="live">{fragment(report)}</div>{actions}</main>'
        f'<footer><p>One process, but for the instances. <a href="{escape(base)}/status.json">As JSON</a></p>'
        f"</footer><script>{SCRIPT}</script></body></html>"
    )


def summary(report: Mapping[str, Any]) -> tuple[str, str]:
    """Return the level (`good`, `warn` or `bad`) and one line that says what is wrong."""
    redis, providers = report["redis"], report["providers"]
    failing = [one["name"] for one in providers if one["state"] == "failing"]
    served = [one["name"] for one in providers if one["state"] != "failing" and one.get("error")]
    tenants = report["failing_credentials"]["count"]
    bad: list[str] = []
    warn: list[str] = []
    if not report["open"]:
        bad.append("The broker is closed")
    if redis["state"] in ("down", "unsupported"):
        warn.append(f"Redis is {redis['state']}" + (f" ({redis['error']})" if redis["error"] else ""))
    if failing:
        bad.append(f"No token for {names_of(failing)}")
    if served:
        warn.append(f"The token of {names_of(served)} is not renewed")
    if tenants:
        failing_ones = "credentials of callables are" if tenants > 1 else "credential of callables is"
        warn.append(f"{tenants} {failing_ones} failing")
    warn += instances_summary(report["instances"])
    text = ". ".join([*bad, *warn]) or "Everything works"
    return ("bad" if bad else "warn" if warn else "good"), f"{text}."


def fragment(report: Mapping[str, Any]) -> str:
    """Return the part of the page that changes."""
    return (
        _redis(report)
        + _providers(report)
        + _failing(report)
        + instances_section(report)
        + _counts(report)
        + events_section(report)
    )


def _redis(report: Mapping[str, Any]) -> str:
    redis, now = report["redis"], report["time"]
    if redis["state"] == "off":
        return (
            f"<section><h2>Redis</h2><p>{'None: nothing is shared.' if report['open'] else 'Not open.'}</p></section>"
        )
    rows = [
        [
            escape(node["node"]),
            state_of(node["state"]),
            time_of(node["since"], now),
            f"{escape(node['error'])} {time_of(node['error_at'], now)}" if node["error"] else "",
            outages_strip(node["outages"], now),
        ]
        for node in redis["nodes"]
    ]
    return section(
        "Redis", ("Server", "State", "Since", "Last error", "Last hour"), rows, none="No server was reached yet."
    )


def _providers(report: Mapping[str, Any]) -> str:
    now = report["time"]
    providers = sorted(report["providers"], key=lambda one: (_ORDER[one["state"]], not one.get("error")))
    rows = [
        [
            escape(one["name"]),
            state_of(one["state"]),
            time_of(one.get("since"), now),
            _lifetime(one),
            _error(one),
            _attempts(one),
            _fetches(one),
            str(one["waiting"] or ""),
        ]
        for one in providers[:_MOST_ROWS]
    ]
    names = ("Provider", "State", "Since", "Token", "Last error", "Attempts", "Requests, last hour", "Callers waiting")
    return section("Providers", names, rows, none="None.", left_out=len(providers) - len(rows))


def _failing(report: Mapping[str, Any]) -> str:
    failing = report["failing_credentials"]
    if not failing["count"]:
        return ""
    rows = [
        [
            escape(one["provider"]),
            f"<code>{escape(one['credential'])}</code>" + (f" {escape(one['label'])}" if one["label"] else ""),
            f'<span class="bad">{escape(one["reason"])}</span>',
            str(one["attempts"]),
            _attempt(one["next_attempt_in"]),
        ]
        for one in failing["worst"]
    ]
    names = ("Provider", "Credential", "Reason", "Attempts", "Next attempt")
    title = f"Failing credentials of callables: {failing['count']}"
    return section(title, names, rows, none="", left_out=failing["count"] - len(rows), compact=True)


def _counts(report: Mapping[str, Any]) -> str:
    tokens, sessions, callers, redis = report["tokens"], report["sessions"], report["callers"], report["redis"]
    unshared = {
        "token": tokens["unshared"],
        "invalidation": tokens["unshared_invalidations"],
        "session": sessions["unshared"],
    }
    shown = {
        "Tokens in this process": tokens["cached"],
        "Sessions in this process": sessions["cached"],
        "API keys": "checked" if callers["authenticated"] else "not checked",
        "Refused keys, last 5 s": callers["refused_keys"],
    }
    if redis["state"] != "off":
        shown |= {
            "Not in Redis yet": ", ".join(counted(number, noun) for noun, number in unshared.items()),
            "Commands to Redis, last hour": _commands(redis["commands"]),
            "Failed, last hour": _errors(redis["commands"]["errors_last_hour"]),
            "Connections to Redis": f"{redis['commands']['in_use']} of {redis['commands']['connections']} in use, "
            f"{counted(redis['commands']['waiting'], 'command')} waiting",
            "Values in Redis": "sealed" if redis["sealed"] else "not sealed",
            "Unreadable values": redis["unreadable"],
        }
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items())
    return f"<section><h2>Tokens, sessions and callers</h2><dl>{pairs}</dl></section>"


def _lifetime(one: Mapping[str, Any]) -> str:
    """Return how long a token lasts, and a bar of its lifetime with a mark at its refresh."""
    left = one.get("expires_in")
    if left is None:
        return ""
    refresh = one["refresh_in"]
    text = f"{seconds_of(left)} left, refresh {due(refresh)}"
    whole = max(one["lifetime"], 0.001)
    width, mark = 100 * min(1.0, left / whole), 100 * min(1.0, max(0.0, (left - refresh) / whole))
    return (
        f'{text}<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="whole" width="100" height="8"/><rect class="left" width="{width:.1f}" height="8"/>'
        f'<rect class="refresh" x="{mark:.1f}" width="1" height="8"/></svg>'
    )


def _error(one: Mapping[str, Any]) -> str:
    if not one.get("error"):
        return ""
    by = f' <span class="dim">(reported by {escape(one["reported_by"])})</span>' if one["reported_by"] else ""
    return f'<span class="bad">{escape(one["reason"])}</span>: {escape(one["error"])}{by}'


def _attempts(one: Mapping[str, Any]) -> str:
    """Return how often a provider was asked in vain, and when it is asked again."""
    if one.get("attempts") is None:
        return ""
    due = _attempt(one.get("next_attempt_in"))
    return f"{one['attempts']}, next {due}" if due else str(one["attempts"])


def _fetches(one: Mapping[str, Any]) -> str:
    """Return how often a provider was asked in the last hour, and how long most requests took."""
    count, p95 = one["fetches_last_hour"], one["fetch_p95"]
    if not count or p95 is None:
        return str(count or "")
    return f'{count}, <span class="line">95 % within {duration(p95)}</span>'


def _commands(commands: Mapping[str, Any]) -> str:
    if commands["p50"] is None:
        return str(commands["last_hour"])
    return f"{commands['last_hour']}, half within {duration(commands['p50'])}, 95 % within {duration(commands['p95'])}"


def _errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {escape(reason)}" for reason, count in errors.items()) or "none"


def _attempt(seconds: float | None) -> str:
    """Return when a provider is asked again: no request is made for a credential that none needs."""
    return "" if seconds is None else "at the next request" if seconds <= 0 else f"in {seconds_of(max(1.0, seconds))}"


def names_of(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
