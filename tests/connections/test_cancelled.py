"""Requests that are cancelled at each await of a refresh: the refresh goes on, and its pair is stored."""

from __future__ import annotations

import asyncio

import pytest

from tests.connections.world import LIFETIME, make_world

MOST = 200


async def test_a_request_cancelled_at_each_await() -> None:
    """After any number of turns of the event loop: the token is sent once, the pair stored, the next request served."""
    for turns in range(MOST):
        async with make_world(brokers=2) as world:
            family = await world.connect()
            world.clock.advance(LIFETIME)
            asking = asyncio.ensure_future(world.token())
            for _ in range(turns):
                await asyncio.sleep(0)
            done = asking.done()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            # In another process, at the same time, and in this one.
            for number in (1, 0):
                assert await world.while_time_passes(world.token(number)) == family.access_tokens[-1], turns
            assert (1, True) == (family.refreshes, family.alive), turns
            assert (await world.stored()).document.refresh_token == family.refresh_tokens[-1]
        if done:
            return
    pytest.fail(f"a refresh takes more than {MOST} turns")


async def test_a_broker_closed_at_each_await() -> None:
    """After any number of turns: what was sent is stored before closing is over, and another process goes on."""
    for turns in range(1, MOST):  # a broker that is used when it is closed already opens itself
        async with make_world() as world:
            family = await world.connect()
            world.clock.advance(LIFETIME)
            other = world.make_broker()
            async with other:
                asking = asyncio.ensure_future(world.token(1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                done = asking.done()
            await asyncio.gather(asking, return_exceptions=True)
            document = (await world.stored()).document
            assert (document.claim, document.refresh_token) == (None, family.refresh_tokens[-1]), turns
            assert await world.token() == family.access_tokens[-1], turns
            assert (1, True) == (family.refreshes, family.alive), turns
        if done:
            return
    pytest.fail(f"a refresh takes more than {MOST} turns")
