"""What the tests of tokens begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.tokens.scripted import Stage
from tests.tokens.world import World, a_world
from tokenmw.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Time that stands still."""
    return ManualClock()


@pytest.fixture
def stage(clock: ManualClock) -> Stage:
    """A provider whose tokens live two hours."""
    return Stage(clock, life=7200.0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three instances, two of them with a wrong wall clock."""
    async with a_world() as one:
        yield one
