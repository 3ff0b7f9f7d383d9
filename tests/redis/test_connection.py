"""Redis goes and comes back: what it costs, who is told, and that nobody has to do anything."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from redis.credentials import CredentialProvider

from tests.looptime import LoopTime
from tests.proxies import Proxy
from tests.redis.waiting import fails, get, until
from tests.servers import RedisServer
from tokenmw import TokenBroker
from tokenmw.limits import Limits
from tokenmw.observe.events import SharedStateChanged
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.observe.events import Event
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.testing import ManualClock

    Connect = Callable[..., RedisConnection]


DEADLINE = Limits().command_seconds


async def test_a_frozen_server_costs_three_deadlines_and_heals_by_itself(
    connect: Connect,
    private_redis: RedisServer,
    events: list[Event],
    log_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three rounds of waiting in all, however many wait; then calls fail at once; after the thaw it is up again.

    The log has one line at once, one a minute, and one when it is over.
    """
    connection = connect(private_redis.url)
    back: list[float] = []
    connection.on_back = lambda: back.append(time.monotonic())
    assert await connection.open()
    private_redis.freeze()
    for _ in range(3):
        async with LoopTime() as waited:
            assert set(await asyncio.gather(*(fails(connection) for _ in range(100)))) <= {"timeout", "busy"}
        assert waited.seconds < 2 * DEADLINE  # it was one, not two
    assert (connection.state, connection.error) == ("down", "timeout")
    for _ in range(1_000):
        with pytest.raises(RedisUnavailable, match="open"):
            get(connection).send(None)  # not even one turn of the loop
    assert [record.message for record in caplog.records] == [
        "Redis cannot be used (timeout); requests go on without it"
    ]
    log_clock.advance(61)
    connection._log.flush()
    private_redis.thaw()
    await until(lambda: connection.state == "up", within=6)
    assert len(back) == 1
    assert connection.error == ""
    assert await get(connection) is None
    assert events == [SharedStateChanged(up=False, error="timeout"), SharedStateChanged(up=True)]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert "similar messages suppressed in the last 61 s" in lines[1]
    assert lines[2].startswith("Redis is back after 61 s")


async def test_a_killed_server_is_used_again_after_its_restart(
    connect: Connect, private_redis: RedisServer, events: list[Event]
) -> None:
    """Every time; and scripts that the new process does not know are sent to it."""
    connection = connect(private_redis.url)
    assert await connection.open()
    for outage in (1, 2):
        private_redis.kill()
        for _ in range(3):
            assert await fails(connection) == "connection"
        assert await fails(connection) == "open"
        private_redis.restart()
        await until(lambda: connection.state == "up", within=6)
        assert await connection.run("session", (b"s",), ("id", 1_000)) == b"id"
        assert len(events) == 2 * outage


async def test_opening_waits_for_a_slow_connection(connect: Connect, proxy: Proxy, events: list[Event]) -> None:
    """A handshake that takes longer than a command may is not taken for an outage."""
    proxy.connect_delay = 0.5
    connection = connect(proxy.url)
    assert await connection.open()
    assert await get(connection) is None
    assert events == []


async def test_opening_gives_up_after_connect_seconds(connect: Connect, proxy: Proxy) -> None:
    """A program starts without Redis."""
    proxy.black_hole = True
    connection = connect(proxy.url, connect_seconds=0.3)
    began = time.monotonic()
    async with LoopTime() as waited:
        assert not await connection.open()
    assert 0.25 < time.monotonic() - began
    assert waited.seconds < 0.6


@pytest.mark.parametrize("kind", ["client", "url"])
async def test_a_slow_line_is_up_again_after_an_outage(connect: Connect, proxy: Proxy, kind: str) -> None:
    """Also with a ready client, which connects within its command: a probe may take as long as connecting does."""
    proxy.connect_delay = 0.4
    async with redis.asyncio.Redis(port=proxy.port) as mine:
        connection = connect(mine if kind == "client" else proxy.url)
        proxy.black_hole = True
        for _ in range(3):
            assert await fails(connection) == "timeout"
        proxy.black_hole = False
        proxy.cut()
        await until(lambda: connection.state == "up", within=6)
        assert await get(connection) is None


async def test_a_slow_server_is_not_taken_for_one_that_is_back(connect: Connect, proxy: Proxy) -> None:
    """The probe has the time to connect; but what it writes must be as quick as a command."""
    connection = connect(proxy.url)
    assert await connection.open()
    proxy.latency = 0.1
    for _ in range(3):
        assert await fails(connection) == "timeout"
    await asyncio.sleep(1.5)
    assert connection.state == "down"
    proxy.latency = 0
    await until(lambda: connection.state == "up", within=6)


async def test_a_short_trouble_is_over_with_one_line(
    connect: Connect, proxy: Proxy, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """Connections that were reset are made anew; nothing was down, and the log says that it is over."""
    connection = connect(proxy.url)
    assert await connection.open()
    await proxy.refuse()
    proxy.cut()
    assert await fails(connection) == "connection"
    await proxy.listen()
    assert await get(connection) is None
    assert [record.message.split(" after ")[0] for record in caplog.records] == [
        "Redis cannot be used (connection); requests go on without it",
        "Redis answers again",
    ]
    assert events == []


async def test_a_prober_survives_whatever_a_client_raises(connect: Connect, redis_server: RedisServer) -> None:
    """It goes on, else Redis would not be used until the next start."""
    connection = connect(redis_server.url)
    client: Any = connection._client
    evalsha, raised = client.evalsha, list[int]()

    async def odd(*args: Any) -> Any:
        if len(raised) < 2:
            raised.append(1)
            raise ZeroDivisionError
        return await evalsha(*args)

    client.evalsha = odd
    for _ in range(3):
        next(iter(connection._primaries)).guard._count("timeout", time.monotonic())
    assert connection.state == "down"
    await until(lambda: connection.state == "up", within=6)
    assert len(raised) == 2


async def test_a_prober_survives_what_a_look_at_the_slots_raises(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster client calls its program back for that: `address_remap`, credentials."""
    connection = connect(redis_server.url)
    primary = next(iter(connection._primaries))
    client: Any = connection._client
    evalsha, looks = client.evalsha, list[int]()

    async def look() -> None:
        looks.append(1)
        raise KeyError("of-the-program")

    async def away(*args: Any) -> Any:
        if len(looks) < 2:
            raise redis.asyncio.ConnectionError
        return await evalsha(*args)

    primary._look_again = look
    client.evalsha = away
    for _ in range(3):
        primary.guard._count("timeout", time.monotonic())
    await until(lambda: connection.state == "up", within=6)
    assert f"The probe of Redis raised KeyError at {__name__}:{look.__code__.co_firstlineno + 2}" in caplog.messages
    assert "of-the-program" not in caplog.text


class Expired(CredentialProvider):
    """A program's way to its secrets, which raises what the library beneath it does."""

    def get_credentials(self) -> tuple[str]:
        """Fail."""
        raise KeyError("of-the-program")


async def test_what_a_program_raises_within_its_client_is_an_outage(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Start-up and requests go on; the log names the program's line, and not redis-py's that called it."""
    async with (
        redis.asyncio.Redis(port=redis_server.port, credential_provider=Expired()) as client,
        TokenBroker({}, redis=client) as broker,
    ):
        for number in range(3):
            await client.connection_pool.disconnect()  # redis-py goes on with one that has not logged in
            await broker.session_id(f"k{number}")
        assert ("down", "client") == (broker.status().shared, broker.status().shared_error)
    place = f"{__name__}:{Expired.get_credentials.__code__.co_firstlineno + 2}"
    assert f"The Redis client raised KeyError at {place}" in caplog.messages
    assert "of-the-program" not in caplog.text


async def test_closing_leaves_no_prober(connect: Connect, proxy: Proxy) -> None:
    """Neither the one that runs, nor one that commands under way would start as they fail."""
    proxy.black_hole = True
    connection = connect(proxy.url)
    for _ in range(2):
        assert await fails(connection) == "timeout"
    late = [asyncio.create_task(fails(connection)) for _ in range(3)]
    await asyncio.sleep(0.02)
    async with LoopTime() as waited:
        await connection.close()
    assert waited.seconds < 0.1
    assert {await each for each in late} <= {"connection", "timeout"}
    assert next(iter(connection._primaries))._prober is None
    other = connect(proxy.url)
    for _ in range(3):
        assert await fails(other) == "timeout"
    assert next(iter(other._primaries))._prober is not None
    await other.close()
    await until(lambda: proxy.open_links == 0, within=1)
