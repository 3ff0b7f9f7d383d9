"""Runs all faults and writes the table of the guide: `python -m tests.faults.table`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.docs.pages import page
from tests.faults.campaign import campaign
from tests.faults.outages import OUTAGES

if TYPE_CHECKING:
    from tests.faults.campaign import Result

__all__ = ["BEGIN", "END", "HEAD", "row", "write"]

BEGIN = "<!-- faults: written by `python -m tests.faults.table` -->"
END = "<!-- /faults -->"
HEAD = (
    "| Fault | `status()` | Failed requests | Longest wait for a new key | Shared again after |",
    "|---|---|---|---|---|",
)


def row(result: Result) -> str:
    """Return the row of one fault, with the results of two processes under load."""
    states = sorted({f"`{report['shared']}` {report['error']}".strip() for report in result.during})
    failed = sum(len(phase["failures"]) for report in result.reports for phase in report["phases"].values())
    longest = max(phase["longest"] for phase in result.phases("during"))
    if result.recovery is not None:
        again = f"{result.recovery:.1f} s"
    else:
        again = "with the next touch" if not result.outage.recovers else "not within 15 s"
    cells = (result.outage.name, ", ".join(states), str(failed), f"{longest * 1000:.0f} ms", again)
    return f"| {' | '.join(cells)} |"


def write(results: dict[str, Result]) -> None:
    """Write the rows into the guide."""
    guide = page("redis_faults.md")
    before, _, rest = guide.text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [row(results[outage.name]) for outage in OUTAGES]
    table = "\n".join((*HEAD, *rows))
    guide.path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(asyncio.run(campaign(OUTAGES)))
