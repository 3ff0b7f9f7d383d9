"""Processes that are stopped or killed inside of the request that spends the refresh token."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.connections.shared import MODULE, Shared
from tests.processes import Worker, Workers
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from tokenmw.testing.provider_server import Hang


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """Run the server."""
    server = ProviderServer(token_life=3600.0)
    with server.running() as base_url:
        yield Shared(server, base_url, database=f"sqlite+aiosqlite:///{tmp_path}/connections.db")


@asynccontextmanager
async def in_the_request(shared: Shared, *, after: bool) -> AsyncGenerator[tuple[Workers, Worker, Hang]]:
    """Run a process that has sent the refresh token; `after`: the server has rotated, and its answer is held back."""
    hang = shared.server.oauth2.script.hang(after=after)
    async with Workers(f"{MODULE}:ask", processes=1, arguments={**shared.options, "tries": 25}) as workers:
        await workers.receive()
        await workers.send("go")
        await hang.arrived.wait()
        shared.server.oauth2.script.clear()
        yield workers, workers[0], hang


async def test_a_process_that_is_stopped_until_its_time_limit_is_over(shared: Shared) -> None:
    """The answer arrives while it is stopped, and is read when it goes on, although `exchange_seconds` are over."""
    family = await shared.connect(expires_in=0.01)
    async with in_the_request(shared, after=True) as (workers, stopped, hang):
        stopped.freeze()
        hang.release()
        await anyio.sleep(1.5)
        stopped.thaw()
        (result,) = await workers.results()
    assert {"values": [family.access_tokens[-1]], "errors": []} == result
    assert (1, True) == (family.refreshes, family.alive)


async def test_a_process_that_is_stopped_while_the_server_works(shared: Shared) -> None:
    """The server answers after the process goes on, within the time limit: one request."""
    family = await shared.connect(expires_in=0.01)
    async with in_the_request(shared, after=False) as (workers, stopped, hang):
        stopped.freeze()
        await anyio.sleep(0.3)
        stopped.thaw()
        hang.release()
        (result,) = await workers.results()
    assert {"values": [family.access_tokens[-1]], "errors": []} == result
    assert (1, True) == (family.refreshes, family.alive)


@pytest.mark.campaign
async def test_a_process_killed_before_the_server_has_rotated(shared: Shared) -> None:
    """The second use of the refresh token is the first one that counts, so the connection survives."""
    family = await shared.connect(expires_in=0.01)
    shared.server.users.detects_reuse = True
    async with in_the_request(shared, after=False) as (_workers, killed, hang):
        killed.kill()
        await anyio.sleep(0.2)
        shared.server.oauth2.script.clear()
        result = await shared.ask_again()
        assert {"values": [family.access_tokens[-1]], "errors": []} == result
        hang.release()


@pytest.mark.campaign
@pytest.mark.parametrize("grace", [0.0, 60.0])
async def test_a_process_killed_before_the_answer(shared: Shared, grace: float) -> None:
    """The named case: a server with a grace window repeats the pair, another one ends the connection."""
    shared.server.users.grace = grace
    family = await shared.connect(expires_in=0.01)
    async with in_the_request(shared, after=True) as (_workers, killed, hang):
        killed.kill()
        result = await shared.ask_again()
        hang.release()
    if grace:
        assert {"values": [family.access_tokens[-1]], "errors": []} == result
        assert family.alive
    else:
        assert [] == result["values"]
        assert "connect the account" in result["errors"][0]
    assert 2 == family.refreshes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_a_child_that_was_forked_while_its_parent_wrote_a_claim(shared: Shared) -> None:
    """The child does not take the claim of its parent for its own, and sends nothing."""
    family = await shared.connect(expires_in=0.01)
    async with Workers(f"{MODULE}:fork_in_claim", processes=1, arguments=shared.options) as workers:
        (result,) = await workers.results()
    assert {"value": family.access_tokens[-1], "forked": True} == result
    assert (1, True) == (family.refreshes, family.alive)
