"""Runs the faults of providers and writes the table of the guide: `python -m tests.faults.provider_table`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.columns import write_table
from tests.faults.provider_campaign import campaign
from tests.faults.provider_faults import FAULTS

if TYPE_CHECKING:
    from tests.faults.provider_campaign import Run

__all__ = ["BEGIN", "END", "GUIDE", "write"]

GUIDE = "operations.md"
BEGIN = "<!-- faults of providers: written by `python -m tests.faults.provider_table` -->"
END = "<!-- /faults of providers -->"


def write(results: dict[str, Run]) -> None:
    """Write the rows into the guide."""
    write_table([results[fault.name].columns for fault in FAULTS], page=GUIDE, begin=BEGIN, end=END)


if __name__ == "__main__":
    write(asyncio.run(campaign(FAULTS)))
