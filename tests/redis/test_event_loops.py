"""A connection that the server has reset is reported as such, and not as code of the program, in each event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.redis.guarded_client import GuardedClient
from tests.redis.waiting import reason_of
from tokenmw.redis.client import close_client

if TYPE_CHECKING:
    from tests.servers import RedisServer

_RESET: Any = struct.pack("ii", 1, 0)


class _Resetting:
    """Forwards connections to a server, and resets them: closing a socket without lingering sends no FIN."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, server_writer]
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))

    def reset(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._writers.clear()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while data := await reader.read(65536):
            writer.write(data)


async def _reasons(port: int) -> list[str]:
    """Return the reasons of commands on connections that were reset before and after a command was sent."""
    proxy = _Resetting(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    one = GuardedClient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    reasons: list[str] = []
    for pause in (0.05, 0.0):
        connection: Any = one.client.connection_pool.make_connection()
        await connection.connect()
        proxy.reset()
        await asyncio.sleep(pause)

        async def send(connection: Any = connection) -> None:
            await connection.send_command("PING")
            await connection.read_response()

        reasons.append(await reason_of(one.guard.attempt(send, seconds=5.0)))
    await one.guard.close()
    await close_client(one.client)
    server.close()
    return reasons


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_reset_connection_is_no_fault_of_the_program(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, loop: str
) -> None:
    """It was `client`: uvloop raises a RuntimeError for it, and asyncio of Python 3.12 and 3.13 an AttributeError."""
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop", reason="no wheel for this Python").run
    assert run(_reasons(redis_server.port)) == ["reset", "reset"]
    assert "raised" not in caplog.text
