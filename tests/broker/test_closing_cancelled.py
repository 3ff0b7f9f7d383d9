"""Closing that has begun completes, also when the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.testing import ManualClock


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_queued_touch_is_sent_although_the_leaving_task_is_cancelled(
    redis_server: RedisServer, turns: int
) -> None:
    """In each turn of the event loop in which the cancellation can come; afterwards no task is left."""
    before, clock = asyncio.all_tasks(), ManualClock()
    limits = Limits(command_seconds=5.0)
    broker = TokenBroker({}, redis=redis_server.url, session_ttl=2.0, clock=clock, limits=limits)
    await broker.__aenter__()
    session = await broker.session_id("key")
    clock.advance(0.6)  # more than a quarter of the TTL, and less than a round of housekeeping
    assert session == await broker.session_id("key")
    assert 1 == broker.status().touches
    (key,) = redis_server.command("KEYS", "*:session")
    redis_server.command("PEXPIRE", key, 1_000)
    leaving = asyncio.ensure_future(broker.__aexit__())
    for _ in range(turns):
        await asyncio.sleep(0)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    if closing := asyncio.all_tasks() - before:
        await asyncio.wait(closing, timeout=10)
    assert before == asyncio.all_tasks()
    assert redis_server.command("PTTL", key) > 1_000
