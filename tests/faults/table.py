"""Writes the guide's table of faults from a run of all of them: `python -m tests.faults.table`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.docs.pages import page
from tests.faults.campaign import campaign
from tests.faults.outages import OUTAGES

if TYPE_CHECKING:
    from tests.faults.campaign import Finding

__all__ = ["BEGIN", "END", "HEAD", "row", "write"]

BEGIN = "<!-- faults: written by `python -m tests.faults.table` -->"
END = "<!-- /faults -->"
HEAD = (
    "| Redis, or the way to it | `status()` says | Requests that failed | Longest wait for a new key | Shared again |",
    "|---|---|---|---|---|",
)


def row(finding: Finding) -> str:
    """Return the row of one fault: what two processes under load saw."""
    words = sorted({f"`{answer['shared']}` {answer['error']}".strip() for answer in finding.during})
    failed = sum(len(phase["failures"]) for report in finding.reports for phase in report["phases"].values())
    longest = max(phase["longest"] for phase in finding.phases("during"))
    if finding.healed is not None:
        again = f"{finding.healed:.1f} s"
    else:
        again = "with the next touch" if not finding.outage.heals else "not within 15 s"
    cells = (finding.outage.name, ", ".join(words), str(failed), f"{longest * 1000:.0f} ms", again)
    return f"| {' | '.join(cells)} |"


def write(findings: dict[str, Finding]) -> None:
    """Write the rows into the guide."""
    guide = page("redis_faults.md")
    before, _, rest = guide.text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [row(findings[outage.name]) for outage in OUTAGES]
    table = "\n".join((*HEAD, *rows))
    guide.path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(asyncio.run(campaign(OUTAGES)))
