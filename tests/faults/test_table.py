"""The table of the guide has a row for each fault of the campaign, from a run that kept the promises."""

from __future__ import annotations

import pytest

from tests.docs.pages import page
from tests.faults.campaign import RECOVERED_WITHIN
from tests.faults.outages import OUTAGES, Outage
from tests.faults.table import BEGIN, END, HEAD

LINES = page("redis_faults.md").text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES[2:]]


def test_the_rows_are_the_faults() -> None:
    """The header and the names are those that a run writes, in the same order."""
    assert list(HEAD) == LINES[:2]
    assert [outage.name for outage in OUTAGES] == [row[0] for row in ROWS]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name)
def test_a_row_has_the_promised_results(outage: Outage) -> None:
    """The state is that of the fault, no request failed, and everything was shared again in time."""
    (_name, state, failed, wait, again) = next(row for row in ROWS if row[0] == outage.name)
    assert outage.state == "either" or state.split("`")[1] == outage.state
    assert "0" == failed
    assert wait.endswith(" ms")
    if outage.recovers:
        assert float(again.removesuffix(" s")) <= RECOVERED_WITHIN
