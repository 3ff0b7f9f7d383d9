"""Runs all faults and writes the table of the guide: `python -m tests.faults.table`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.docs.pages import page
from tests.faults.campaign import campaign
from tests.faults.columns import table
from tests.faults.outages import OUTAGES

if TYPE_CHECKING:
    from tests.faults.campaign import Result

__all__ = ["BEGIN", "END", "write"]

BEGIN = "<!-- faults: written by `python -m tests.faults.table` -->"
END = "<!-- /faults -->"


def write(results: dict[str, Result]) -> None:
    """Write the rows into the guide."""
    guide = page("redis_faults.md")
    before, _, rest = guide.text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = table([results[outage.name].columns for outage in OUTAGES])
    guide.path.write_text(f"{before}{BEGIN}\n{rows}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(asyncio.run(campaign(OUTAGES)))
