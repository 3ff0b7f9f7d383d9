"""Pieces of the page as HTML: tables, states, times, and the strip of an hour."""

from __future__ import annotations

import datetime as dt
from html import escape
from typing import TYPE_CHECKING, Final

from tokenmw.observe.recorder import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["counted", "due", "duration", "outages_strip", "seconds_of", "section", "state_of", "time_of"]

_LEVELS: Final = {
    **dict.fromkeys(("failing", "down", "unsupported"), "bad"),
    **dict.fromkeys(("aging", "unknown"), "warn"),
    **dict.fromkeys(("fresh", "up"), "good"),
}


def section(
    title: str,
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    none: str,
    left_out: int = 0,
    compact: bool = False,
) -> str:
    """Return a table with its heading.

    Args:
        title: The heading, as HTML.
        names: Of the columns.
        rows: Cells, as HTML.
        none: What is shown without any row.
        left_out: How many rows there are beyond these.
        compact: Whether a row is one paragraph on a phone.
    """
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


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 token` or `2 tokens`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def state_of(state: str) -> str:
    """Return a state in its colour."""
    return f'<span class="state {_LEVELS.get(state, "")}">{escape(state)}</span>'


def due(seconds: float) -> str:
    """Return when something is due."""
    return "now" if seconds <= 0 else f"in {seconds_of(seconds)}"


def time_of(at: float | None, now: float, *, ago: bool = True) -> str:
    """Return a time in UTC, and how long ago that was."""
    if at is None:
        return ""
    instant = dt.datetime.fromtimestamp(at, dt.UTC)
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    shown = instant.strftime("%H:%M:%S" if instant.date() == today else "%Y-%m-%d %H:%M:%S")
    text = f'<time datetime="{instant:%Y-%m-%dT%H:%M:%SZ}">{shown} UTC</time>'
    return f'{text} <span class="dim">({seconds_of(max(0.0, now - at))})</span>' if ago else text


def seconds_of(seconds: float) -> str:
    """Return a long duration."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def duration(seconds: float) -> str:
    """Return a short duration."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"


def outages_strip(outages: Sequence[Sequence[float | None]], now: float) -> str:
    """Return a strip of the last hour, now at its right end, with each outage; and the same in words."""
    start, rects, lasted = now - HOUR, "", 0.0
    for began, ended in outages:
        first, last = max(began or start, start), now if ended is None else ended
        lasted += max(0.0, last - first)
        width = max(45.0, last - first)  # one of a second would not be seen
        rects += f'<rect class="out" x="{min(first - start, HOUR - width):.0f}" width="{width:.0f}" height="8"/>'
    times = "1 outage" if len(outages) == 1 else f"{len(outages)} outages"
    text = f"{times}, {seconds_of(lasted)}" if outages else "no outage"
    return (
        f'{text}<svg class="hour" viewBox="0 0 3600 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="up" width="3600" height="8"/>{rects}</svg>'
    )
