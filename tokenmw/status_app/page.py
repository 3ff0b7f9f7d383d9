"""The page: a report as HTML, for phones and desktops, by keyboard and screen reader."""

from __future__ import annotations

import datetime as dt
from html import escape
from typing import TYPE_CHECKING, Any, Final

from tokenmw.status_app.style import SCRIPT, STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["fragment", "page", "summary"]

_MOST_ROWS: Final = 50
_RELOAD: Final = 5  # seconds, without scripts
_ORDER: Final = {"failing": 0, "aging": 1, "cold": 2, "fresh": 3, "per request": 4}
_LEVELS: Final = {
    **dict.fromkeys(("failing", "down", "unsupported"), "bad"),
    **dict.fromkeys(("aging", "unknown"), "warn"),
    **dict.fromkeys(("fresh", "up"), "good"),
}


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
        f'<footer><p>One process; others have pages of their own. <a href="{escape(base)}/status.json">As JSON</a></p>'
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
        bad.append(f"No token for {_names(failing)}")
    if served:
        warn.append(f"The token of {_names(served)} is not renewed")
    if tenants:
        failing_ones = "credentials of callables are" if tenants > 1 else "credential of callables is"
        warn.append(f"{tenants} {failing_ones} failing")
    text = ". ".join([*bad, *warn]) or "Everything works"
    return ("bad" if bad else "warn" if warn else "good"), f"{text}."


def fragment(report: Mapping[str, Any]) -> str:
    """Return the part of the page that changes."""
    return _redis(report) + _providers(report) + _counts(report) + _failing(report)


def _redis(report: Mapping[str, Any]) -> str:
    redis, now = report["redis"], report["time"]
    if redis["state"] == "off":
        return (
            f"<section><h2>Redis</h2><p>{'None: nothing is shared.' if report['open'] else 'Not open.'}</p></section>"
        )
    rows = [
        [
            escape(node["node"]),
            _state(node["state"]),
            _time(node["since"], now),
            f"{escape(node['error'])} {_time(node['error_at'], now)}" if node["error"] else "",
        ]
        for node in redis["nodes"]
    ]
    return _section("Redis", ("Server", "State", "Since", "Last error"), rows, none="No server was reached yet.")


def _providers(report: Mapping[str, Any]) -> str:
    now = report["time"]
    providers = sorted(report["providers"], key=lambda one: (_ORDER[one["state"]], not one.get("error")))
    rows = [
        [
            escape(one["name"]),
            _state(one["state"]),
            _time(one.get("since"), now),
            _lifetime(one),
            _error(one),
            "" if one.get("attempts") is None else str(one["attempts"]),
            _attempt(one.get("next_attempt_in")),
        ]
        for one in providers[:_MOST_ROWS]
    ]
    names = ("Provider", "State", "Since", "Token", "Last error", "Attempts", "Next attempt")
    return _section("Providers", names, rows, none="None.", left_out=len(providers) - len(rows))


def _failing(report: Mapping[str, Any]) -> str:
    failing = report["failing_credentials"]
    if not failing["count"]:
        return ""
    rows = [
        [
            escape(one["provider"]),
            f"<code>{escape(one['credential'])}</code>",
            f'<span class="bad">{escape(one["reason"])}</span>',
            str(one["attempts"]),
            _attempt(one["next_attempt_in"]),
        ]
        for one in failing["worst"]
    ]
    names = ("Provider", "Credential", "Reason", "Attempts", "Next attempt")
    title = f"Failing credentials of callables: {failing['count']}"
    return _section(title, names, rows, none="", left_out=failing["count"] - len(rows), compact=True)


def _counts(report: Mapping[str, Any]) -> str:
    tokens, sessions, callers, redis = report["tokens"], report["sessions"], report["callers"], report["redis"]
    unshared = (tokens["unshared"], tokens["unshared_invalidations"], sessions["unshared"])
    shown = {
        "Tokens in this process": tokens["cached"],
        "Sessions in this process": sessions["cached"],
        "API keys": "checked" if callers["authenticated"] else "not checked",
        "Refused keys, last 5 s": callers["refused_keys"],
    }
    if redis["state"] != "off":
        shown |= {
            "Not in Redis yet": f"{unshared[0]} tokens, {unshared[1]} invalidations, {unshared[2]} sessions",
            "Commands to Redis": f"{redis['commands']['in_use']} running, {redis['commands']['waiting']} waiting",
            "Values in Redis": "sealed" if redis["sealed"] else "not sealed",
            "Unreadable values": redis["unreadable"],
        }
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items())
    return f"<section><h2>Tokens, sessions and callers</h2><dl>{pairs}</dl></section>"


def _section(
    title: str,
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    none: str,
    left_out: int = 0,
    compact: bool = False,
) -> str:
    # With roles, because on a phone the rows are blocks, which browsers no longer take for a table.
    body = "".join(
        f'<tr role="row"><th scope="row" role="rowheader">{row[0]}</th>'
        + "".join(
            f'<td role="cell" data-label="{name}">{f"<div>{cell}</div>" if cell else ""}</td>'
            for name, cell in zip(names[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    if not body:
        return f"<section><h2>{title}</h2><p>{none}</p></section>"
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in names)
    kind = ' class="compact"' if compact else ""
    more = f'<p class="dim">And {left_out} more.</p>' if left_out > 0 else ""
    return (
        f'<section><h2>{title}</h2><table role="table"{kind} aria-label="{title}">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{body}</tbody></table>'
        f"{more}</section>"
    )


def _state(state: str) -> str:
    return f'<span class="state {_LEVELS.get(state, "")}">{escape(state)}</span>'


def _lifetime(one: Mapping[str, Any]) -> str:
    """Return how long a token lasts, and a bar of its lifetime with a mark at its refresh."""
    left = one.get("expires_in")
    if left is None:
        return ""
    refresh = one["refresh_in"]
    text = f"{_seconds(left)} left, refresh {_due(refresh)}"
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


def _attempt(seconds: float | None) -> str:
    """Return when a provider is asked again: no request is made for a credential that none needs."""
    return "" if seconds is None else "at the next request" if seconds <= 0 else f"in {_seconds(max(1.0, seconds))}"


def _due(seconds: float) -> str:
    return "now" if seconds <= 0 else f"in {_seconds(seconds)}"


def _time(at: float | None, now: float) -> str:
    if at is None:
        return ""
    instant = dt.datetime.fromtimestamp(at, dt.UTC)
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    shown = instant.strftime("%H:%M:%S" if instant.date() == today else "%Y-%m-%d %H:%M:%S")
    ago = _seconds(max(0.0, now - at))
    return f'<span><time datetime="{instant:%Y-%m-%dT%H:%M:%SZ}">{shown} UTC</time> <span class="dim">({ago})</span>'


def _seconds(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
