"""The table of the guide has a row for each fault of the campaign, from a run that kept the promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import page
from tests.faults.campaign import RECOVERED_WITHIN
from tests.faults.columns import HEAD
from tests.faults.outages import OUTAGES
from tests.faults.table import BEGIN, END

if TYPE_CHECKING:
    from tests.faults.outage import Outage

LINES = page("redis_faults.md").text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES[2:]]


def test_the_rows_are_the_faults() -> None:
    """The header and the names are those that a run writes, in the same order."""
    assert list(HEAD) == LINES[:2]
    assert [outage.name for outage in OUTAGES] == [row[0] for row in ROWS]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name)
def test_a_row_has_the_promised_results(outage: Outage) -> None:
    """The states are those of the fault, no request failed, ids are stable, and everything was shared in time."""
    (_name, states, failed, slowest, fetches, alternated, healed, _logged) = next(
        row for row in ROWS if row[0] == outage.name
    )
    if "either" not in outage.states:
        assert set(outage.states) == set(states.split("`")[1::2])
    count, _, requests = failed.partition(" of ")
    assert "0" == count
    assert int(requests) > 100 * outage.workers
    assert slowest.endswith(" ms")
    assert int(fetches) > 0
    assert "0" == alternated or "new ids" in outage.exempt
    if outage.recovers:
        assert float(healed.removesuffix(" s")) <= RECOVERED_WITHIN
