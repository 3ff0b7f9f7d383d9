"""The last events on the page, the newest first."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tokenmw.status_app.html import time_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["events_section"]


def events_section(report: Mapping[str, Any]) -> str:
    """Return the list of the last events of this process."""
    now = report["time"]
    rows = "".join(f"<li>{_event(one, now)}</li>" for one in report["events"])
    shown = f'<ol class="events">{rows}</ol>' if rows else "<p>None so far.</p>"
    return f"<section><h2>Last events of this process</h2>{shown}</section>"


def _event(one: Mapping[str, Any], now: float) -> str:
    credential = f" <code>{escape(one['credential'])}</code>" if one["credential"] else ""
    times = f" {one['times']} times" if one["times"] > 1 else ""
    subject = f"<strong>{escape(one['subject'])}</strong>{credential} " if one["subject"] else ""
    text = f'<span class="{one["level"]}">{escape(one["text"])}</span>'
    return f"{time_of(one['at'], now, ago=False)} {subject}{text}{times}"
