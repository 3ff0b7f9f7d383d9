"""Runs the faults of a fleet and writes their table into the guide: `python -m tests.faults.fleet_table`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.columns import write_table
from tests.faults.fleet_campaign import FLEET_FAULTS, fleet_campaign

if TYPE_CHECKING:
    from tests.faults.fleet_campaign import FleetResult

__all__ = ["BEGIN", "END", "write"]

BEGIN = "<!-- fleet faults: written by `python -m tests.faults.fleet_table` -->"
END = "<!-- /fleet faults -->"


def write(results: dict[str, FleetResult]) -> None:
    """Write the rows into the guide."""
    write_table([results[fault.name].columns for fault in FLEET_FAULTS], page="redis_faults.md", begin=BEGIN, end=END)


if __name__ == "__main__":
    write(asyncio.run(fleet_campaign(FLEET_FAULTS)))
