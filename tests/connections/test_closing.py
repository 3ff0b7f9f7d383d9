"""A broker that is closed while a connection is refreshed: nothing more is sent, and what was granted is stored."""

from __future__ import annotations

import asyncio

import pytest

from tests.connections.world import LIFETIME, World, make_world
from tokenmw import Limits, TokenUnavailable
from tokenmw.connections.store import StoreUnavailable

SHORT = Limits(exchange_seconds=0.2, store_seconds=0.2)


async def test_a_broker_that_is_closed_before_it_sends(world: World) -> None:
    """Closing has begun while the claim was written: the refresh token is not sent, and the claim is removed."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    claiming, go = asyncio.Event(), asyncio.Event()

    async def wait(method: str) -> None:
        if method == "save":
            claiming.set()
            await go.wait()

    async with world.make_broker():
        world.store.after = wait
        asking = asyncio.ensure_future(world.token(1))
        await claiming.wait()
        asyncio.get_running_loop().call_later(0.05, go.set)
    with pytest.raises(TokenUnavailable):
        await asking
    assert 0 == family.refreshes
    assert (await world.stored()).document.claim is None
    assert await world.token() == family.access_tokens[-1]


async def test_a_broker_that_is_closed_while_the_store_fails(world: World) -> None:
    """Closing ends the attempts to store a new pair, and then offers it once more."""
    family = await world.connect()
    world.clock.advance(LIFETIME)
    failing = asyncio.Event()
    writes = 0

    async def fail(method: str) -> None:
        nonlocal writes
        writes += method == "save"
        if method == "save" and writes == 2:
            failing.set()
            raise StoreUnavailable("the test says so")

    async with world.make_broker(limits=SHORT):
        world.store.before = fail
        asking = asyncio.ensure_future(world.token(1))
        await failing.wait()  # the clock does not move: the next attempt would be in a while
    await asyncio.gather(asking, return_exceptions=True)
    assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
    assert (1, True) == (family.refreshes, family.alive)


async def test_a_loop_that_is_closed_in_the_middle() -> None:
    """What a broker has got in one event loop is known in the next one, although nothing was stored."""
    async with make_world() as world:
        family = await world.connect()
        world.clock.advance(LIFETIME)
        saved = 0

        async def cancel_all(method: str) -> None:
            nonlocal saved
            saved += method == "save"
            if method == "save" and saved == 2:
                for task in asyncio.all_tasks():
                    if task.get_name() == "tokenmw exchange":
                        task.cancel()
                await asyncio.sleep(0)

        world.store.before = cancel_all
        with pytest.raises(TokenUnavailable):
            await world.token()
        await world.clock.elapse(2)
        assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
        assert (1, True) == (family.refreshes, family.alive)
