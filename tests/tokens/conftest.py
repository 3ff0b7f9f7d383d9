"""Fixtures of the token tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.tokens.providers import Endpoint
from tests.tokens.world import World, make_world
from tokenmw.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Return time that moves only when a test moves it."""
    return ManualClock()


@pytest.fixture
def endpoint(clock: ManualClock) -> Endpoint:
    """Return an endpoint whose tokens live two hours."""
    return Endpoint(clock, lifetime=7200.0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Start three instances; the wall clocks of two of them are wrong."""
    async with make_world() as world:
        yield world
