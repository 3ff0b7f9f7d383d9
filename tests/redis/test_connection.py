"""Outages of Redis: what they cost, what is logged and observed, and that recovery needs nobody."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from redis.credentials import CredentialProvider

from tests.looptime import LoopTime
from tests.proxies import Proxy
from tests.redis.waiting import fails, get, reason_of, until
from tests.servers import RedisServer
from tokenmw import TokenBroker
from tokenmw.limits import Limits
from tokenmw.observe.events import SharedStateChanged
from tokenmw.observe.state_events import RedisStateChanged
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.observe.events import Event
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.testing import ManualClock

    Connect = Callable[..., RedisConnection]


DEADLINE = Limits().command_seconds


async def test_frozen_server_costs_three_deadlines_and_recovers(
    connect: Connect,
    private_redis: RedisServer,
    events: list[Event],
    log_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Requests wait for three deadlines in all, however many there are; then they fail at once, until the server runs.

    The log has one line at once, one a minute, and one after the recovery.
    """
    recoveries: list[float] = []
    connection = connect(private_redis.url, on_recovered=lambda: recoveries.append(time.monotonic()))
    assert await connection.open()
    private_redis.freeze()
    for _ in range(3):
        async with LoopTime() as waited:
            assert set(await asyncio.gather(*(fails(connection) for _ in range(100)))) <= {"timeout", "busy"}
        assert waited.seconds < 2 * DEADLINE  # one deadline, not two
    assert (connection.state, connection.error) == ("down", "timeout")
    for _ in range(1_000):
        with pytest.raises(RedisUnavailable, match="open"):
            get(connection).send(None)  # fails without one turn of the loop
    assert [record.message for record in caplog.records] == [
        f"tokenmw: Redis unavailable (timeout, 127.0.0.1:{private_redis.port}); serving from local caches"
    ]
    log_clock.advance(61)
    connection._log.flush()
    private_redis.thaw()
    await until(lambda: connection.state == "up", within=6)
    assert len(recoveries) == 1
    assert connection.error == ""
    assert await get(connection) is None
    node = connection.address
    assert events == [
        RedisStateChanged(node, up=False, error="timeout"),
        SharedStateChanged(up=False, error="timeout"),
        RedisStateChanged(node, up=True),
        SharedStateChanged(up=True),
    ]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert lines[1].startswith(lines[0])
    assert "in the last 61 s" in lines[1]
    assert lines[2].startswith(f"tokenmw: Redis recovered (127.0.0.1:{private_redis.port}) after ")


async def test_killed_server_is_used_again_after_its_restart(
    connect: Connect, private_redis: RedisServer, events: list[Event]
) -> None:
    """So it is in every outage; and scripts that the new process does not know are sent to it."""
    connection = connect(private_redis.url)
    assert await connection.open()
    for outage in (1, 2):
        private_redis.kill()
        for _ in range(3):
            assert await fails(connection) in ("reset", "refused")
        assert connection.error == "refused"
        assert await fails(connection) == "open"
        private_redis.restart()
        await until(lambda: connection.state == "up", within=6)
        assert await connection.run("session", (b"s",), ("id", 1_000)) == 0
        assert len(events) == 4 * outage  # of the server, and of Redis as a whole


async def test_open_waits_for_a_slow_connection(connect: Connect, proxy: Proxy, events: list[Event]) -> None:
    """A handshake that takes longer than `command_seconds` is no outage."""
    proxy.connect_delay = 0.5
    connection = connect(proxy.url)
    assert await connection.open()
    assert await get(connection) is None
    assert events == []


async def test_open_gives_up_after_connect_seconds(connect: Connect, proxy: Proxy) -> None:
    """A program starts without Redis."""
    proxy.black_hole = True
    connection = connect(proxy.url, connect_seconds=0.3)
    began = time.monotonic()
    async with LoopTime() as waited:
        assert not await connection.open()
    assert 0.25 < time.monotonic() - began
    assert waited.seconds < 0.6


@pytest.mark.parametrize("kind", ["client", "url"])
async def test_slow_connection_recovers_from_an_outage(connect: Connect, proxy: Proxy, kind: str) -> None:
    """A probe may take as long as connecting does, also with a user's client, which connects within a command."""
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


async def test_slow_server_has_not_recovered(connect: Connect, proxy: Proxy) -> None:
    """A probe has the time to connect, but its write must be as quick as a command."""
    connection = connect(proxy.url)
    assert await connection.open()
    proxy.latency = 0.1
    for _ in range(3):
        assert await fails(connection) == "timeout"
    await asyncio.sleep(1.5)
    assert connection.state == "down"
    proxy.latency = 0
    await until(lambda: connection.state == "up", within=6)


async def test_short_failure_is_one_line_and_no_outage(
    connect: Connect, proxy: Proxy, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """After connections were reset, new ones are made; the state stays up, and the log says that Redis answers.

    It was logged as an outage: `Redis unavailable`.
    """
    connection = connect(proxy.url)
    assert await connection.open()
    await proxy.refuse()
    proxy.cut()
    for _ in range(2):
        assert await fails(connection) in ("reset", "refused")
    assert caplog.messages == []
    await proxy.listen()
    assert await get(connection) is None
    address = f"127.0.0.1:{proxy.port}"
    fix = "nothing listens there: check host and port, and that Redis runs"
    assert caplog.messages == [f"tokenmw: Redis failed 2 commands (refused, {address}): {fix}; it answers again"]
    assert events == []


async def test_command_that_fails_after_a_later_one_has_succeeded_is_no_outage(
    connect: Connect, private_redis: RedisServer, caplog: pytest.LogCaptureFixture, log_clock: ManualClock
) -> None:
    """It was logged as an outage without an end; an outage an hour later then seemed to have taken 3601 s."""
    connection = connect(private_redis.url)
    assert await connection.open()
    late = asyncio.create_task(reason_of(connection.execute(lambda one: one.blpop(["none"], timeout=0), key=b"a")))
    await asyncio.sleep(DEADLINE / 3)
    assert await get(connection) is None
    assert await late == "timeout"
    address = f"127.0.0.1:{private_redis.port}"
    assert caplog.messages == [f"tokenmw: Redis failed 1 command (timeout, {address}) and answers again"]
    assert connection.state == "up"
    caplog.clear()
    log_clock.advance(3600)
    private_redis.freeze()
    for _ in range(3):
        assert await fails(connection) == "timeout"
    log_clock.advance(2)
    private_redis.thaw()
    await until(lambda: connection.state == "up", within=6)
    first, last = caplog.messages
    assert first == f"tokenmw: Redis unavailable (timeout, {address}); serving from local caches"
    assert last.startswith(f"tokenmw: Redis recovered ({address}) after 2 s")


async def test_probing_continues_whatever_a_client_raises(connect: Connect, redis_server: RedisServer) -> None:
    """If the task ended, Redis would not be used until the next start."""
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
        next(iter(connection._servers)).guard.failed(TimeoutError(), began=time.monotonic())
    assert connection.state == "down"
    await until(lambda: connection.state == "up", within=6)
    assert len(raised) == 2


async def test_probing_continues_if_the_lookup_of_slots_raises(
    connect: Connect, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For that lookup a cluster client calls code of the user: `address_remap`, credentials."""
    connection = connect(redis_server.url)
    client: Any = connection._client
    evalsha, lookups = client.evalsha, list[int]()

    async def look_up(_client: object) -> None:
        lookups.append(1)
        raise KeyError("of-the-program")

    async def unavailable(*args: Any) -> Any:
        if len(lookups) < 2:
            raise redis.asyncio.ConnectionError
        return await evalsha(*args)

    monkeypatch.setattr("tokenmw.redis.guard.refresh_slots", look_up)
    client.evalsha = unavailable
    for _ in range(3):
        next(iter(connection._servers)).guard.failed(TimeoutError(), began=time.monotonic())
    await until(lambda: connection.state == "up", within=6)
    place = f"{__name__}:{look_up.__code__.co_firstlineno + 2}"
    assert f"tokenmw: The probe of Redis raised KeyError at {place} ({connection.address})" in caplog.messages
    assert "of-the-program" not in caplog.text


class Expired(CredentialProvider):
    """A credential provider whose secret store raises."""

    def get_credentials(self) -> tuple[str]:
        """Raise."""
        raise KeyError("of-the-program")


async def test_exception_of_user_code_inside_of_a_client_is_an_outage(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Start-up and requests go on; the log names the line of the user's code, and not redis-py's that called it."""
    async with (
        redis.asyncio.Redis(port=redis_server.port, credential_provider=Expired()) as client,
        TokenBroker({}, redis=client) as broker,
    ):
        for number in range(3):
            await client.connection_pool.disconnect()  # redis-py would use a connection that has not logged in
            await broker.session_id(f"k{number}")
        assert ("down", "client") == (broker.status().shared, broker.status().shared_error)
    place = f"{__name__}:{Expired.get_credentials.__code__.co_firstlineno + 2}"
    line = f"tokenmw: The Redis client raised KeyError at {place} (localhost:{redis_server.port})"
    assert line in caplog.messages
    assert "of-the-program" not in caplog.text


async def test_close_leaves_no_probe_task(connect: Connect, proxy: Proxy) -> None:
    """The running task ends, and commands that fail afterwards start no other one."""
    proxy.black_hole = True
    connection = connect(proxy.url)
    for _ in range(2):
        assert await fails(connection) == "timeout"
    late = [asyncio.create_task(fails(connection)) for _ in range(3)]
    await asyncio.sleep(0.02)
    async with LoopTime() as waited:
        await connection.close()
    assert waited.seconds < 0.1
    assert {await each for each in late} <= {"reset", "connection", "timeout"}
    assert next(iter(connection._servers)).guard._probing is None
    other = connect(proxy.url)
    for _ in range(3):
        assert await fails(other) == "timeout"
    assert next(iter(other._servers)).guard._probing is not None
    await other.close()
    await until(lambda: proxy.open_links == 0, within=1)
