"""Hints that arrive in the middle of a refresh, or that a server does not answer at first, have their effect."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.hints import pair
from tests.brokers import runtime_of
from tokenmw.redis.connection import UNAVAILABLE

if TYPE_CHECKING:
    from tests.servers import RedisServer

QUICK = 1.0
"""Seconds in which a hint has its effect on a busy machine."""


@pytest.mark.parametrize("script", ["acquire", "commit"])
async def test_a_token_that_is_invalidated_before_it_is_installed_is_not_used(
    redis_server: RedisServer, script: str
) -> None:
    """The hint may overtake the reply to the script that returns or stores the token."""
    async with pair(redis_server) as (first, second):
        connection: Any = runtime_of(second.broker).redis
        run, sent, arrives = connection.run, asyncio.Event(), asyncio.Event()

        async def delayed(name: str, keys: Any, args: Any, **options: Any) -> Any:
            reply = await run(name, keys, args, **options)
            if name == script:
                sent.set()
                await arrives.wait()
            return reply

        connection.run = delayed
        if script == "commit":
            await first.invalidate()  # so that the other one fetches a new token
            await second.loses_its_token(within=QUICK)
        else:
            second.entry.current = None  # it has expired
        request = asyncio.create_task(second.value())
        await sent.wait()
        await first.invalidate()
        await asyncio.sleep(0.3)  # the hint has arrived
        arrives.set()
        assert "second" == await request
        assert second.entry.current is not None
        assert second.entry.current.version > first.entry.invalid_version


async def test_a_hint_is_read_again_if_one_server_of_a_cluster_does_not_answer(redis_server: RedisServer) -> None:
    """A failed batch of one server raises nothing, because the others have answered."""
    async with pair(redis_server) as (first, second):
        connection: Any = runtime_of(second.broker).redis
        pipeline, failed = connection.pipeline, asyncio.Event()

        async def failing(commands: Any, **options: Any) -> Any:
            if failed.is_set():
                return await pipeline(commands, **options)
            failed.set()
            return [UNAVAILABLE] * len(commands)

        connection.pipeline = failing
        await first.invalidate()
        await second.loses_its_token(within=QUICK)
        assert failed.is_set()
