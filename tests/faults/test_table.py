"""The guide's table of faults has a row for each fault of the campaign, from a run in which the promises held."""

from __future__ import annotations

import pytest

from tests.docs.pages import page
from tests.faults.campaign import HEALED_WITHIN
from tests.faults.outages import OUTAGES, Outage
from tests.faults.table import BEGIN, END, HEAD

LINES = page("redis_faults.md").text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES[2:]]


def test_the_rows_are_the_faults() -> None:
    """Each fault has its row, in their order, under the head that the run writes."""
    assert list(HEAD) == LINES[:2]
    assert [outage.name for outage in OUTAGES] == [row[0] for row in ROWS]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name)
def test_a_row_says_what_the_tests_hold(outage: Outage) -> None:
    """The state is that of the fault, no request failed, and all was shared again in time."""
    (_name, state, failed, wait, again) = next(row for row in ROWS if row[0] == outage.name)
    assert outage.state == "either" or state.split("`")[1] == outage.state
    assert "0" == failed
    assert wait.endswith(" ms")
    if outage.heals:
        assert float(again.removesuffix(" s")) <= HEALED_WITHIN
