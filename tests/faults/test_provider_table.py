"""The table of the guide has a row for each fault of a token server, from a run that kept the promises."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import page
from tests.faults.columns import HEAD
from tests.faults.provider_faults import FAULTS, ProviderFault
from tests.faults.provider_table import BEGIN, END, GUIDE

LINES = page(GUIDE).text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES[2:]]


def test_the_rows_are_the_faults() -> None:
    """The header and the names are those that a run writes, in the same order."""
    assert list(HEAD) == LINES[:2]
    assert [fault.name for fault in FAULTS] == [row[0] for row in ROWS]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_has_the_promised_results(fault: ProviderFault) -> None:
    """Requests failed only with a reason; the waits, fetches, log lines and the time of healing are within bounds."""
    (_name, status, failed, slowest, fetches, alternated, healed, lines) = next(
        row for row in ROWS if row[0] == fault.name
    )
    refused, requests = (int(number) for number in failed.split(" of "))
    assert status.startswith("`up`")
    assert bool(refused) == bool(fault.why)
    assert requests > 1000
    assert float(slowest.removesuffix(" ms")) <= 1000 * fault.slowest
    assert 0 < int(fetches) <= fault.fetches
    assert "0" == alternated
    assert float(healed.removesuffix(" s")) <= fault.healed
    assert lines == "nothing" or re.fullmatch(r"\d+ provider", lines)
    assert sum(int(number) for number in re.findall(r"\d+", lines)) <= fault.lines
