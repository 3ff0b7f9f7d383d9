"""A new connection tells its server the scripts, so that the first command that needs one is one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.connection import Connection

from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import get, word
from tests.servers import RedisServer, wheel_server
from tests.sessions.instance import reset_statistics, sent
from tokenmw.redis.background_connect import BACKGROUND_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tokenmw.redis.connection import RedisConnection

    Connect = Callable[..., RedisConnection]

SESSION: Any = ("session", (b"s",), ("id", 1_000))
READ: Any = ("read", (b"{t}:token", b"{t}:lease", b"{t}:note", b"{t}:tomb"), ())


@pytest.fixture
async def dialled() -> AsyncGenerator[Callable[[int], Any]]:
    """Make connections that are not made yet; they count how often they send."""
    made: list[Any] = []

    def make(port: int) -> Any:
        connection_class: Any = BACKGROUND_CONNECTIONS[Connection]
        connection = connection_class(host="127.0.0.1", port=port, socket_connect_timeout=10.0, protocol=3)
        connection.sends = []
        send = connection.send_packed_command

        async def counted(command: Any, **options: Any) -> None:
            connection.sends.append(b"".join(command))
            await send(command, **options)

        connection.send_packed_command = counted
        made.append(connection)
        return connection

    yield make
    for connection in made:
        await connection.abort()


@pytest.mark.parametrize("scheme", ["redis", "unix"])
async def test_the_first_call_on_a_fresh_server_is_one_round_trip(
    connect: Connect, private_redis: RedisServer, scheme: str
) -> None:
    """Of any script: none has to be sent with its text, not even at opening."""
    connection = connect(private_redis.unix_url if scheme == "unix" else private_redis.url, command_seconds=10.0)
    for calls, (script, keys, args) in enumerate((SESSION, READ), 1):
        await connection.run(script, keys, args)
        assert sent(private_redis) == {"evalsha": calls}


@needs_cluster_urls
async def test_so_it_is_in_a_cluster(connect: Connect, cluster: RedisServer) -> None:
    """Whose connections are made by the nodes."""
    cluster.command("SCRIPT", "FLUSH")
    reset_statistics(cluster)
    connection = connect(f"redis+cluster://127.0.0.1:{cluster.port}", command_seconds=10.0)
    await connection.run(*SESSION)
    await connection.run(*READ)
    assert sent(cluster) == {"evalsha": 2}


async def test_a_new_connection_tells_them_again(connect: Connect, private_redis: RedisServer) -> None:
    """To a server that has forgotten them meanwhile, or was restarted; no call needs the text."""
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await connection.open()
    for forget in (("SCRIPT", "FLUSH"), ("FLUSHALL",)):
        private_redis.command(*forget)
        private_redis.command("CLIENT", "KILL", "TYPE", "normal")
        assert await word(get(connection)) == "connection"
        reset_statistics(private_redis)
        assert await connection.run(*SESSION) == b"id"
        assert sent(private_redis) == {"evalsha": 1}


async def test_a_standing_connection_sends_the_text_once(connect: Connect, private_redis: RedisServer) -> None:
    """After SCRIPT FLUSH; a batch as well as a single call."""
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await connection.open()
    private_redis.command("SCRIPT", "FLUSH")
    reset_statistics(private_redis)
    for _ in range(2):
        assert await connection.run(*SESSION) == b"id"
    assert sent(private_redis) == {"evalsha": 2, "eval": 1}
    private_redis.command("SCRIPT", "FLUSH")
    assert await connection.run_each("session", [(b"s", ("other", 1_000))]) == [b"id"]


async def test_a_user_who_may_not_load_sends_the_text(connect: Connect, private_redis: RedisServer) -> None:
    """SCRIPT refused is no fault of the connection: all works as without it."""
    private_redis.command("ACL", "SETUSER", "default", "-script")
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await connection.open()
    reset_statistics(private_redis)
    for _ in range(2):
        assert await connection.run(*SESSION) == b"id"
    assert sent(private_redis) == {"evalsha": 2, "eval": 1}
    assert ("up", "") == (connection.state, connection.error)


async def test_a_user_who_may_not_run_scripts_is_told_so(connect: Connect, private_redis: RedisServer) -> None:
    """By the command, and not by the connection, which is made."""
    private_redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha", "-script")
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await get(connection) is None
    assert await word(connection.run(*SESSION)) == "permission"


async def test_a_handshake_has_no_more_round_trips_than_redis_pys(
    private_redis: RedisServer, dialled: Callable[[int], Any]
) -> None:
    """What it tells of itself goes along with the question for scripts; only unknown ones are sent."""
    first, second = dialled(private_redis.port), dialled(private_redis.port)
    await first.connect()
    await second.connect()
    texts = first.sends[-1]
    assert 9 == texts.count(b"\r\nLOAD\r\n")
    assert first.sends[:-1] == second.sends
    *_, asked = second.sends
    assert 2 == len(second.sends)
    assert (2, 1) == (asked.count(b"\r\nSETINFO\r\n"), asked.count(b"\r\nEXISTS\r\n"))


async def test_the_server_still_knows_who_is_connected(dialled: Callable[[int], Any]) -> None:
    """CLIENT LIST shows the library; Redis 7.2 and Valkey have that."""
    executable = wheel_server()
    if executable is None:
        pytest.skip("The server of this system may be too old.")
    with RedisServer(executable=executable) as server:
        connection = dialled(server.port)
        await connection.connect()
        assert b"lib-name=redis-py" in server.command("CLIENT", "LIST")


async def test_a_connection_lost_while_loading_is_dialled_anew(
    private_redis: RedisServer, dialled: Callable[[int], Any]
) -> None:
    """Half a handshake is none."""
    connection = dialled(private_redis.port)
    send, broken = connection.send_packed_command, list[int]()

    async def breaks_once(command: Any, **options: Any) -> None:
        if b"\r\nEXISTS\r\n" in b"".join(command) and not broken:
            broken.append(1)
            private_redis.command("CLIENT", "KILL", "TYPE", "normal")
        await send(command, **options)

    connection.send_packed_command = breaks_once
    with pytest.raises(Exception, match=r"(?i)connection"):
        await connection.connect()
    assert not connection.is_connected
    await connection.connect()
    await connection.send_command("ECHO", "whole")
    assert await connection.read_response() == b"whole"
