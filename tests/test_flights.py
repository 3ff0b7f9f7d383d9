"""Many flights side by side: how many there may be, and how long somebody waits for one at most."""

from __future__ import annotations

import pytest

from tests.test_flight import Work, flights, turns
from tokenmw.flight import TooManyFlights


async def test_a_flight_that_another_one_needs_is_not_counted() -> None:
    """Else those that need it would take the place of what they need. It takes no place of others, either."""
    group, work = flights(2), Work()
    group.join("1", work)
    inner = group.join("needed by 1", work, counted=False)
    assert inner is group.join("needed by 1", work)
    group.join("2", work)
    group.join("needed by 2", work, counted=False)
    with pytest.raises(TooManyFlights):
        group.join("3", work)
    assert 4 == len(group)
    work.go.set()
    await inner.wait()
    await turns()
    again = Work()
    group.join("1", again)
    group.join("2", again)
    with pytest.raises(TooManyFlights):
        group.join("3", again)
    await group.close()
    with pytest.raises(TooManyFlights):
        group.join("needed by 1", again, counted=False)
