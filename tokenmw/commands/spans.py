"""Durations as text."""

from __future__ import annotations

from typing import Final

__all__ = ["span"]

_SHORT: Final = 10.0  # seconds
_DAY: Final = 86_400.0


def span(seconds: float) -> str:
    """Return a duration with its unit, such as `0.02 s`, `4.1 s`, `3599 s` or `30 days`."""
    if seconds < 1.0:
        return f"{seconds:.2f} s"
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:.0f} days"
    return f"{seconds:.1f} s" if seconds < _SHORT else f"{seconds:.0f} s"
