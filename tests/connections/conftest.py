"""Fixtures of the tests of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.connections.world import World, make_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Open one process."""
    async with make_world() as world:
        yield world


@pytest.fixture
async def two() -> AsyncIterator[World]:
    """Open two processes over one store, without Redis."""
    async with make_world(brokers=2) as world:
        yield world
