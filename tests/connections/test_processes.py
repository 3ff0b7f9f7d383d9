"""Several processes and one connection: one refresh for each expiry, whatever Redis does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from tests.connections.shared import MODULE, Shared
from tests.processes import Workers
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from tests.servers import RedisServer


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """Run the server."""
    server = ProviderServer(token_life=3600.0)
    with server.running() as base_url:
        yield Shared(server, base_url, database=f"sqlite+aiosqlite:///{tmp_path}/connections.db")


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
    arguments: dict[str, Any] = {**shared.options, "redis": redis, "callers": 100, "limits": {}}
    async with Workers(f"{MODULE}:ask", processes=8, arguments=arguments) as workers:
        await workers.receive()
        await workers.send("go")
        results = await workers.results()
    assert [{"values": [family.access_tokens[-1]], "errors": []}] * 8 == results
    assert (1, True) == (family.refreshes, family.alive)


@pytest.mark.parametrize(
    ("redis", "expiries"),
    [
        ("none", 5),
        *(
            pytest.param(redis, expiries, marks=pytest.mark.campaign)
            for redis, expiries in (("up", 200), ("none", 40), ("killed", 40), ("flushed", 40), ("restarted", 40))
        ),
    ],
)
async def test_many_expiries_in_a_row(shared: Shared, private_redis: RedisServer, redis: str, expiries: int) -> None:
    """4 processes refresh a token of 0.25 s again and again: no refresh token is sent twice, and the family lives."""
    life = 0.25
    shared.server.oauth2.life = life
    family = await shared.connect(expires_in=life)
    if redis == "killed":
        private_redis.kill()
    arguments: dict[str, Any] = {
        **shared.options,
        "redis": None if redis == "none" else private_redis.url,
        "limits": {},
    }
    arguments["seconds"] = expiries * life * 1.1
    async with Workers(f"{MODULE}:keep_asking", processes=4, arguments=arguments, within=180.0) as workers:
        await workers.receive()
        await workers.send("go")
        results: list[Any] = []
        async with anyio.create_task_group() as disturbance:
            disturbance.start_soon(_disturb, private_redis, redis)
            results += await workers.results()
            disturbance.cancel_scope.cancel()
    # On a busy machine, a token of 0.25 s may expire on its way to the caller.
    assert [text for result in results for text in result["errors"] if "expired" not in text] == []
    assert shared.server.users.sent_twice == []
    assert family.alive
    assert len(family.refresh_tokens) - 1 == family.refreshes
    assert family.refreshes >= expiries * 0.8


async def _disturb(server: RedisServer, how: str) -> None:
    while how in ("flushed", "restarted"):
        await anyio.sleep(0.7)
        if how == "flushed":
            await anyio.to_thread.run_sync(server.command, "FLUSHALL")
        else:
            await anyio.to_thread.run_sync(server.restart)
