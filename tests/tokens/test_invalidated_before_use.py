"""A token that is invalidated after its refresh has ended, before the requests that wait for it have their turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.providers import ScriptedProvider
from tokenmw import Limits, TokenUnavailable

if TYPE_CHECKING:
    from tests.tokens.providers import Endpoint
    from tokenmw.testing import ManualClock
    from tokenmw.tokens.entry import TokenEntry


def invalidate_after_refresh(instance: Instance, entry: TokenEntry) -> None:
    """Invalidate the entry when the refresh in progress is over, before the requests that wait for it have a turn."""
    flight = instance.manager._refreshes.get(entry.provider)
    assert flight is not None

    def invalidate(_task: asyncio.Task[None]) -> None:
        with pytest.raises(StopIteration):  # without Redis it never waits
            instance.sync.invalidate_current(entry).send(None)

    flight._task.add_done_callback(invalidate)


@pytest.mark.parametrize("method", ["get", "get_for_fetch", "get_for_injection"])
async def test_requests_get_the_token_of_one_more_refresh(clock: ManualClock, endpoint: Endpoint, method: str) -> None:
    """All requests that waited share one more refresh, and none of them fails."""
    endpoint.takes(0.01)
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        waiting = [asyncio.create_task(getattr(instance.manager, method)(entry)) for _ in range(3)]
        await settle()
        invalidate_after_refresh(instance, entry)
        await clock.elapse(0.011)
        await clock.elapse(0.011)
        assert ["token-2"] * 3 == [token.value for token in await asyncio.gather(*waiting)]
    assert 2 == len(endpoint.calls)


async def test_a_second_refresh_is_the_last_one(clock: ManualClock, endpoint: Endpoint) -> None:
    """Endless invalidations cannot make a request ask the provider endlessly."""
    endpoint.takes(0.01)
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        waiting = asyncio.create_task(instance.manager.get(entry))
        await settle()
        for _ in range(2):
            invalidate_after_refresh(instance, entry)
            await clock.elapse(0.011)
        with pytest.raises(TokenUnavailable, match="expired before it could be used"):
            await asyncio.wait_for(waiting, 5)
    assert 2 == len(endpoint.calls)


@pytest.mark.parametrize(("method", "seconds"), [("get", 9.0), ("get_for_fetch", 6.3), ("get_for_injection", 6.0)])
async def test_the_wait_is_not_longer_for_it(
    clock: ManualClock, endpoint: Endpoint, method: str, seconds: float
) -> None:
    """The wait for both refreshes together is as long as that for one may be."""
    endpoint.takes(4.0)
    limits = Limits(fetch_seconds=7.0, lease_seconds=8.0, wait_seconds=9.0, inject_seconds=6.0)
    async with Instance(clock, limits=limits) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        waiting = asyncio.create_task(getattr(instance.manager, method)(entry))
        await settle()
        invalidate_after_refresh(instance, entry)
        endpoint.takes(60.0)
        await clock.elapse(seconds - 0.1)
        assert (2, False) == (len(endpoint.calls), waiting.done())
        await clock.elapse(0.2)
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            await asyncio.wait_for(waiting, 5)
