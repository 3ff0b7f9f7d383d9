"""Processes that are killed or stopped at each point of a refresh: the connection survives, but for one named case."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
import pytest

from tests.connections.shared import MODULE, Shared
from tests.connections.workers import FAST
from tests.postgres import PostgresServer
from tests.processes import Workers
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from tests.servers import RedisServer


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL for all tests."""
    with PostgresServer() as server:
        yield server


# What takes minutes with all stores runs with the campaigns.
SLOW = pytest.mark.campaign


@pytest.fixture(params=["sqlite", *(pytest.param(store, marks=SLOW) for store in ("postgresql", "redis"))])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    """Run the server, and choose the database."""
    database = f"sqlite+aiosqlite:///{tmp_path}/connections.db"
    if request.param == "postgresql":
        running: PostgresServer = request.getfixturevalue("postgres")
        running.command("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        database = running.url
    elif request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        database = f"{redis.url}#{uuid4()}"
    server = ProviderServer(token_life=3600.0)
    with server.running() as base_url:
        yield Shared(server, base_url, database=database)


# Where a process is killed or stopped: at a point of the store, before or after its work.
BEFORE_THE_REQUEST = [("load", "before"), ("load", "after"), ("claim", "before"), ("claim", "after")]
AFTER_THE_ANSWER = [("commit", "before"), ("commit", "after")]


@pytest.mark.parametrize(("at", "when"), BEFORE_THE_REQUEST)
async def test_a_process_killed_before_the_request(shared: Shared, at: str, when: str) -> None:
    """The next process refreshes the connection, with the only request that the server gets."""
    family = await shared.connect(expires_in=0.01)
    await _killed(shared, at, when)
    result = await shared.ask_again()
    assert {"values": [family.access_tokens[-1]], "errors": []} == result
    assert (1, True) == (family.refreshes, family.alive)


@pytest.mark.parametrize(("at", "when"), AFTER_THE_ANSWER)
async def test_a_process_killed_after_the_answer(
    shared: Shared, private_redis: RedisServer, at: str, when: str
) -> None:
    """Redis has the pair that the process could not store, so that the connection survives."""
    family = await shared.connect(expires_in=0.01)
    shared.options["redis"] = private_redis.url
    await _killed(shared, at, when)
    result = await shared.ask_again()
    assert {"values": [family.access_tokens[-1]], "errors": []} == result
    assert (1, True) == (family.refreshes, family.alive)


@pytest.mark.campaign
async def test_the_answer_is_lost_with_its_process(shared: Shared) -> None:
    """The named case: killed between answer and store, without Redis. The next use of the token ends the connection."""
    family = await shared.connect(expires_in=0.01)
    await _killed(shared, "commit", "before")
    result = await shared.ask_again()
    assert [] == result["values"]
    assert "connect the account" in result["errors"][0]
    assert 2 == family.refreshes


async def test_a_process_killed_after_the_commit_without_redis(shared: Shared) -> None:
    """What is stored is stored: the next process uses it."""
    family = await shared.connect(expires_in=0.01)
    await _killed(shared, "commit", "after")
    assert {"values": [family.access_tokens[-1]], "errors": []} == await shared.ask_again()
    assert (1, True) == (family.refreshes, family.alive)


async def _killed(shared: Shared, at: str, when: str) -> None:
    arguments = {**shared.options, "at": at, "when": when}
    async with Workers(f"{MODULE}:pause_in_refresh", processes=1, arguments=arguments) as workers:
        assert ["paused"] == await workers.receive()
        workers[0].kill()


@pytest.mark.parametrize("seconds", [0.5, pytest.param(4.0, marks=SLOW)], ids=["short", "longer than its claim"])
@pytest.mark.parametrize(("at", "when"), BEFORE_THE_REQUEST + AFTER_THE_ANSWER)
async def test_a_process_that_is_stopped_for_a_while(
    shared: Shared, private_redis: RedisServer, at: str, when: str, seconds: float
) -> None:
    """SIGSTOP and SIGCONT: both processes get the token of the only request, whichever of them sends it."""
    family = await shared.connect(expires_in=0.01)
    shared.options["redis"] = private_redis.url
    arguments = {**shared.options, "at": at, "when": when}
    async with Workers(f"{MODULE}:pause_in_refresh", processes=1, arguments=arguments) as workers:
        await workers.receive()
        stopped = workers[0]
        stopped.freeze()
        began = time.monotonic()
        other = await shared.ask_again() if seconds > FAST["claim_seconds"] else None
        await anyio.sleep(max(0.0, seconds - (time.monotonic() - began)))
        stopped.thaw()
        await workers.send("go")
        (woken,) = await workers.results()
    other = other or await shared.ask_again()
    assert {"values": [family.access_tokens[-1]], "errors": []} == other
    assert woken["value"] == family.access_tokens[-1] or "TokenUnavailable" in woken["value"]
    assert (1, True) == (family.refreshes, family.alive)
