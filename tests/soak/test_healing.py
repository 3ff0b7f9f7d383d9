"""48 processes lose 2 500 sessions each on a slow server."""

from __future__ import annotations

import pytest

from tests.benchmarks.healing import GOAL, PROCESSES, SESSIONS, SLOWER, heal

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("own", [True, False])
async def test_a_fleet_uploads_each_session_once(*, own: bool) -> None:
    """Uploads executed are a tenth above those needed at most, no process takes the server for unavailable."""
    found = await heal(processes=PROCESSES, sessions=SESSIONS, own=own, slower=SLOWER)
    assert (found.needed, 0) == (found.stored, found.down)
    assert found.executed <= GOAL * found.needed, str(found)
