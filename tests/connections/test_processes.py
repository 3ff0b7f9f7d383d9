"""Several processes and one connection: one refresh for each expiry, whatever of Redis and the processes fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.connections.workers import FAST, broker_over, store_of
from tests.processes import Workers
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from tests.servers import RedisServer
    from tokenmw.testing.provider_server.families import Family

MODULE = "tests.connections.workers"


class Shared:
    """What all processes share: the server, and the file with the connection.

    Attributes:
        server: The server, which revokes a family when one of its refresh tokens is used twice.
        options: The arguments of each process.
    """

    def __init__(self, server: ProviderServer, base_url: str, path: Path) -> None:
        self.server = server
        self.options: dict[str, Any] = {
            "database": f"sqlite+aiosqlite:///{path}/connections.db",
            "base_url": base_url,
            "redis": None,
            "limits": FAST,
        }

    async def connect(self, *, expires_in: float) -> Family:
        """Store a connection, and return its family."""
        store = store_of(self.options["database"])
        async with broker_over(store, base_url=self.options["base_url"], redis=None) as broker:
            pair = self.server.users.grant("ada", client="crm")
            await broker.connections.save(
                "crm",
                "user-1",
                refresh_token=pair.refresh_token,
                access_token=pair.access_token,
                expires_in=expires_in,
            )
        return pair.family

    async def ask_again(self) -> dict[str, Any]:
        """Ask in one more process, which tries until claims of other processes can be taken over."""
        async with Workers(f"{MODULE}:ask", processes=1, arguments={**self.options, "tries": 25}) as workers:
            await workers.receive()
            await workers.send("go")
            (result,) = await workers.results()
        return dict(result)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """Run the server."""
    server = ProviderServer(token_life=3600.0)
    with server.running() as base_url:
        yield Shared(server, base_url, tmp_path)


async def test_800_callers_at_an_expiry_cause_one_refresh(shared: Shared, redis_server: RedisServer) -> None:
    """8 processes with 100 callers each: one request, everybody served, and the family is alive."""
    await _stampede(shared, redis_server.url)


async def test_800_callers_without_redis_cause_one_refresh(shared: Shared) -> None:
    """The same without Redis, where only the claim in the store keeps processes apart."""
    await _stampede(shared, None)


async def test_800_callers_with_redis_unavailable_cause_one_refresh(shared: Shared, private_redis: RedisServer) -> None:
    """The same with a Redis that was killed."""
    private_redis.kill()
    await _stampede(shared, private_redis.url)


async def _stampede(shared: Shared, redis: str | None) -> None:
    family = await shared.connect(expires_in=0.01)
    arguments = {**shared.options, "redis": redis, "callers": 100, "limits": {}}
    async with Workers(f"{MODULE}:ask", processes=8, arguments=arguments) as workers:
        await workers.receive()
        await workers.send("go")
        results = await workers.results()
    assert [{"values": [family.access_tokens[-1]], "errors": []}] * 8 == results
    assert (1, True) == (family.refreshes, family.alive)


@pytest.mark.parametrize(("redis", "expiries"), [("up", 200), ("none", 40), ("killed", 40)])
async def test_many_expiries_in_a_row(shared: Shared, private_redis: RedisServer, redis: str, expiries: int) -> None:
    """4 processes refresh a token of 0.25 s again and again: no refresh token is sent twice, and the family lives."""
    life = 0.25
    shared.server.oauth2.life = life
    family = await shared.connect(expires_in=life)
    if redis == "killed":
        private_redis.kill()
    arguments = {**shared.options, "redis": None if redis == "none" else private_redis.url, "limits": {}}
    arguments["seconds"] = expiries * life * 1.1
    async with Workers(f"{MODULE}:keep_asking", processes=4, arguments=arguments, within=180.0) as workers:
        await workers.receive()
        await workers.send("go")
        results = await workers.results()
    # On a busy machine, a token of 0.25 s may expire on its way to the caller.
    assert [text for result in results for text in result["errors"] if "expired" not in text] == []
    assert shared.server.users.sent_twice == []
    assert family.alive
    assert len(family.refresh_tokens) - 1 == family.refreshes
    assert family.refreshes >= expiries * 0.8


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


@pytest.mark.parametrize("seconds", [0.5, 4.0], ids=["short", "longer than its claim"])
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
