"""A proxy in front of two servers, which sends each command to the server that has its first key.

So do Envoy's Redis filter and others. They do not check whether the further keys of a script are on that server.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self
from zlib import crc32

if TYPE_CHECKING:
    from tests.servers import RedisServer

__all__ = ["RoutingProxy"]

_SCRIPTS = {b"EVAL", b"EVALSHA"}
_WITH_A_KEY = {b"GET", b"SET", b"GETEX", b"PTTL", b"DEL", b"PEXPIRE", b"GETRANGE"}


class RoutingProxy:
    """Listens on a free port; an async context manager."""

    def __init__(self, *servers: RedisServer) -> None:
        self._ports = [server.port for server in servers]
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        async with AsyncExitStack() as stack:
            stack.callback(self._tasks.discard, task)
            stack.callback(writer.close)
            backends = [await asyncio.open_connection("127.0.0.1", port) for port in self._ports]
            for _, to_server in backends:
                stack.callback(to_server.close)
            try:
                while (command := await _message(reader))[0]:
                    raw, words = command
                    # What has no key, such as SCRIPT LOAD, is for all servers.
                    chosen = backends if (key := _first_key(words)) is None else [backends[crc32(key) % len(backends)]]
                    replies: list[bytes] = []
                    for from_server, to_server in chosen:
                        to_server.write(raw)
                        replies.append((await _message(from_server))[0])
                    writer.write(replies[0])
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client, a server or the test has ended


def _first_key(words: list[bytes]) -> bytes | None:
    name = words[0].upper()
    if name in _SCRIPTS:
        return words[3]
    return words[1] if name in _WITH_A_KEY else None


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """Read one command or reply. Return its bytes, and the bulk strings in it; nothing at the end of the stream."""
    line = await reader.readline()
    if not line:
        return b"", []
    kind, size = line[:1], line[1:-2]
    if kind in b"$=!" and size != b"-1":
        body = await reader.readexactly(int(size) + 2)
        return line + body, [body[:-2]]
    count = int(size) * (2 if kind == b"%" else 1) if kind in b"*~>%" else 0
    words: list[bytes] = []
    for _ in range(count):
        raw, more = await _message(reader)
        line += raw
        words += more
    return line, words
