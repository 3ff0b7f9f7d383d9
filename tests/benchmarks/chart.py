"""A bar chart of one row as SVG, with colours for light and dark pages."""

from __future__ import annotations

from html import escape

from tests.benchmarks.rows import Row

__all__ = ["chart"]

_LINE, _LEFT, _WIDTH = 30, 250, 350
# With its own background: a dark page can be shown on a system with light colours.
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.page{fill:#fff}.note{fill:#59636e}.ours{fill:#1a7f37}"
    ".peer{fill:#8c959f}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.note{fill:#9198a1}"
    ".ours{fill:#3fb950}.peer{fill:#656c76}}"
)


def chart(row: Row, *, machine: str) -> str:
    """Return a chart of the medians of a row, in ascending order."""
    figures = {"tokenmw": row.ours, **row.peers}
    bars = sorted(figures.items(), key=lambda bar: bar[1].median)
    longest = bars[-1][1].median
    height = 60 + _LINE * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {height}" width="680" height="{height}" role="img">',
        f"<title>{escape(row.name)}</title><style>{_STYLE}</style>",
        f'<rect class="page" width="680" height="{height}" rx="6"/>',
        f'<text x="12" y="22" font-weight="600">{escape(row.name)}, {escape(row.unit)} (less is better)</text>',
    ]
    for number, (name, figure) in enumerate(bars):
        y = 36 + number * _LINE
        width = max(1.0, figure.median / longest * _WIDTH)
        kind = "ours" if name == "tokenmw" else "peer"
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="20" rx="2"/>',
            f'<text x="{_LEFT + width + 6:.1f}" y="{y + 15}">{figure.median:.1f}</text>',
        ]
    parts.append(f'<text class="note" x="12" y="{height - 8}">{escape(machine)}</text></svg>')
    return "\n".join(parts) + "\n"
