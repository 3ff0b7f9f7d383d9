"""Runs the faults of a fleet and writes their table into the guide: `python -m tests.faults.fleet_table`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.docs.pages import page
from tests.faults.columns import table
from tests.faults.fleet_campaign import FLEET_FAULTS, fleet_campaign

if TYPE_CHECKING:
    from tests.faults.fleet_campaign import FleetResult

__all__ = ["BEGIN", "END", "write"]

BEGIN = "<!-- fleet faults: written by `python -m tests.faults.fleet_table` -->"
END = "<!-- /fleet faults -->"


def write(results: dict[str, FleetResult]) -> None:
    """Write the rows into the guide."""
    guide = page("redis_faults.md")
    before, _, rest = guide.text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = table([results[fault.name].columns for fault in FLEET_FAULTS])
    guide.path.write_text(f"{before}{BEGIN}\n{rows}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(asyncio.run(fleet_campaign(FLEET_FAULTS)))
