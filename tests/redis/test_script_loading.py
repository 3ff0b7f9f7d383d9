"""A new connection loads the scripts, so that the first command that needs one takes one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.asyncio.connection import Connection

from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import get, reason_of
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
async def make_connection() -> AsyncGenerator[Callable[[int], Any]]:
    """Create connections that are not connected yet; they record what they send."""
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
async def test_first_call_on_a_new_server_is_one_round_trip(
    connect: Connect, private_redis: RedisServer, scheme: str
) -> None:
    """No script has to be sent with its text, not even at opening."""
    connection = connect(private_redis.unix_url if scheme == "unix" else private_redis.url, command_seconds=10.0)
    for calls, (script, keys, args) in enumerate((SESSION, READ), 1):
        await connection.run(script, keys, args)
        assert sent(private_redis) == {"evalsha": calls}


@needs_cluster_urls
async def test_first_call_in_a_cluster_is_one_round_trip(connect: Connect, cluster: RedisServer) -> None:
    """The connections of its nodes load the scripts, too."""
    cluster.command("SCRIPT", "FLUSH")
    reset_statistics(cluster)
    connection = connect(f"redis+cluster://127.0.0.1:{cluster.port}", command_seconds=10.0)
    await connection.run(*SESSION)
    await connection.run(*READ)
    assert sent(cluster) == {"evalsha": 2}


async def test_new_connection_loads_the_scripts_again(connect: Connect, private_redis: RedisServer) -> None:
    """So after a reconnect to a server that has lost them, no call needs the text."""
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await connection.open()
    for forget in (("SCRIPT", "FLUSH"), ("FLUSHALL",)):
        private_redis.command(*forget)
        private_redis.command("CLIENT", "KILL", "TYPE", "normal")
        assert await reason_of(get(connection)) == "reset"
        reset_statistics(private_redis)
        assert await connection.run(*SESSION) in {0, b"id"}
        assert sent(private_redis) == {"evalsha": 1}


async def test_open_connection_sends_the_text_once(connect: Connect, private_redis: RedisServer) -> None:
    """After SCRIPT FLUSH the first call of a script sends it, and so does a batch."""
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await connection.open()
    private_redis.command("SCRIPT", "FLUSH")
    reset_statistics(private_redis)
    assert [0, b"id"] == [await connection.run(*SESSION) for _ in range(2)]
    assert sent(private_redis) == {"evalsha": 2, "eval": 1}
    private_redis.command("SCRIPT", "FLUSH")
    assert await connection.run_for_each("session", [(b"s", ("other", 1_000))]) == [b"id"]


async def test_text_is_sent_where_loading_is_forbidden(connect: Connect, private_redis: RedisServer) -> None:
    """If the ACL forbids SCRIPT, the connection is made all the same."""
    private_redis.command("ACL", "SETUSER", "default", "-script")
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await connection.open()
    reset_statistics(private_redis)
    assert [0, b"id"] == [await connection.run(*SESSION) for _ in range(2)]
    assert sent(private_redis) == {"evalsha": 2, "eval": 1}
    assert ("up", "") == (connection.state, connection.error)


async def test_forbidden_scripts_have_the_reason_permission(connect: Connect, private_redis: RedisServer) -> None:
    """The command fails, and not the connection."""
    private_redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha", "-script")
    connection = connect(private_redis.url, command_seconds=10.0)
    assert await get(connection) is None
    assert await reason_of(connection.run(*SESSION)) == "permission"


async def test_handshake_has_as_many_round_trips_as_redis_pys(
    private_redis: RedisServer, make_connection: Callable[[int], Any]
) -> None:
    """The client info is sent together with the question for scripts; only unknown ones are loaded."""
    first, second = make_connection(private_redis.port), make_connection(private_redis.port)
    await first.connect()
    await second.connect()
    texts = first.sends[-1]
    assert 14 == texts.count(b"\r\nLOAD\r\n")
    assert first.sends[:-1] == second.sends
    *_, asked = second.sends
    assert 2 == len(second.sends)
    assert (2, 1) == (asked.count(b"\r\nSETINFO\r\n"), asked.count(b"\r\nEXISTS\r\n"))


async def test_server_knows_the_client_library(make_connection: Callable[[int], Any]) -> None:
    """CLIENT LIST shows it; Redis 7.2 and Valkey have that."""
    executable = wheel_server()
    if executable is None:
        pytest.skip("The server of this system may be too old.")
    with RedisServer(executable=executable) as server:
        connection = make_connection(server.port)
        await connection.connect()
        assert b"lib-name=redis-py" in server.command("CLIENT", "LIST")


async def test_connection_that_is_lost_while_loading_is_made_again(
    private_redis: RedisServer, make_connection: Callable[[int], Any]
) -> None:
    """A handshake that was interrupted does not count."""
    connection = make_connection(private_redis.port)
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


async def test_no_connection_reads_a_file(
    private_redis: RedisServer, make_connection: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py 8 would read its version from disk for each connection, in the event loop, for a millisecond."""
    read: list[str] = []
    monkeypatch.setattr("importlib.metadata.version", read.append)
    connection = make_connection(private_redis.port)
    await connection.connect()
    assert [] == read
    assert redis.__version__.encode() in b"".join(connection.sends)
