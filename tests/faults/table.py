"""Runs all faults and writes the table of the guide: `python -m tests.faults.table`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.campaign import campaign
from tests.faults.columns import write_table
from tests.faults.outages import OUTAGES

if TYPE_CHECKING:
    from tests.faults.campaign import Result

__all__ = ["BEGIN", "END", "write"]

BEGIN = "<!-- faults: written by `python -m tests.faults.table` -->"
END = "<!-- /faults -->"


def write(results: dict[str, Result]) -> None:
    """Write the rows into the guide."""
    write_table([results[outage.name].columns for outage in OUTAGES], page="redis_faults.md", begin=BEGIN, end=END)


if __name__ == "__main__":
    write(asyncio.run(campaign(OUTAGES)))
