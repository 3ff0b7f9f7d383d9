"""A broker that was made or used before a fork works in parent and child, as with gunicorn's --preload."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings

import pytest

from tests.processes import Workers
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker

PATIENT = Limits(command_seconds=2.0)


async def use(broker: TokenBroker) -> str:
    """Open the broker, and return a shared session id."""
    async with broker:
        session = await broker.session_id("alice")
        assert "up" == broker.status().shared
        return session


def forked(*, url: str, used_before: bool) -> list[str]:
    """Fork, and use one broker in both processes. Return the session ids: before, parent, child, parent again."""
    broker = TokenBroker({}, redis=url, limits=PATIENT)
    ids = [asyncio.run(use(broker))] if used_before else []
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking with threads; the broker has none
        pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, asyncio.run(use(broker)).encode())
            gc.collect()
        finally:
            os._exit(0)
    ids.append(asyncio.run(use(broker)))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        ids.append(pipe.read())
    assert (pid, 0) == os.waitpid(pid, 0)
    ids.append(asyncio.run(use(broker)))
    return ids


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_both_processes_of_a_fork_share(redis_server: RedisServer, used_before: bool) -> None:  # noqa: FBT001
    """Parent and child get the same session id, and so does the parent's next event loop."""
    arguments = {"url": redis_server.url, "used_before": used_before}
    async with Workers("tests.broker.test_fork:forked", processes=1, arguments=arguments) as workers:
        (ids,) = await workers.results()
    assert 3 + used_before == len(ids)
    assert 1 == len(set(ids))
