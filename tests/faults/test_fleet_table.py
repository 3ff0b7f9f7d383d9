"""The guide has a row for each fault of a fleet, from a run that kept the promises."""

from __future__ import annotations

import pytest

from tests.docs.pages import page
from tests.faults.columns import HEAD
from tests.faults.fleet_campaign import FLEET_FAULTS
from tests.faults.fleet_faults import FleetFault
from tests.faults.fleet_table import BEGIN, END

LINES = page("redis_faults.md").text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES[2:]]


def test_the_rows_are_the_faults() -> None:
    """The header and the names are those that a run writes, in the same order."""
    assert list(HEAD) == LINES[:2]
    assert [fault.name for fault in FLEET_FAULTS] == [row[0] for row in ROWS]


@pytest.mark.parametrize("fault", FLEET_FAULTS, ids=lambda fault: fault.name)
def test_a_row_has_the_promised_results(fault: FleetFault) -> None:
    """The state is that of the fault, no request failed, no id alternated, and everything was shared again in time."""
    _name, state, failed, slowest, fetches, alternated, healed, _logged = next(
        row for row in ROWS if row[0] == fault.name
    )
    assert fault.state == "either" or state.split("`")[1] == fault.state
    assert failed.startswith("0 of ")
    assert float(slowest.removesuffix(" ms")) < fault.slowest * 1000
    assert int(fetches) > 0
    assert "0" == alternated
    assert float(healed.removesuffix(" s")) <= fault.healed_within
