"""The listener finds hints in whatever arrives, within bounds of memory and time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tracemalloc
from typing import TYPE_CHECKING, Any, Self

import pytest
import redis.asyncio as redis
from redis.asyncio.connection import Connection

from tests.redis.waiting import until
from tokenmw import Limits
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.hints import HintListener
from tokenmw.redis.keys import KeyNames

if TYPE_CHECKING:
    from tests.servers import RedisServer

NAMES = KeyNames("shop", name_key=None)
CHANNEL = b"shop:v1:hints"
TOKEN = NAMES.key(NAMES.digest("token", "a"), "token")
SESSION = NAMES.key(NAMES.digest("session", b"a"), "session")


class Listening:
    """A listener, and what it has heard."""

    def __init__(self, url: str = "redis://localhost:1", *, limits: Limits | None = None) -> None:
        self.heard: list[bytes] = []
        self.connected = 0
        self.client = redis.Redis.from_url(url)
        self.listener = HintListener(
            self.client,
            names=NAMES,
            limits=limits or Limits(),
            log=ThrottledLog(SYSTEM_CLOCK),
            usable=lambda: True,
            on_hint=self.heard.append,
            on_listening=self._note,
        )
        self._task: asyncio.Task[None] | None = None

    def _note(self) -> None:
        self.connected += 1

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.listener.run())
        await until(lambda: self.connected == 1, within=5)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.client.aclose()


def message(data: bytes, channel: bytes = CHANNEL) -> bytes:
    """Return a published message as a server sends it."""
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(data), data)


def hint(key: bytes) -> bytes:
    """Return the hint for a key, as a server sends it."""
    return message(key.removeprefix(b"shop:v1:"))


def test_the_names_of_a_hint_are_part_of_the_key() -> None:
    """A hint is at most 64 bytes; with the first part of the channel it is the key."""
    assert CHANNEL == NAMES.hints
    for key in (TOKEN, SESSION):
        assert key.startswith(CHANNEL.removesuffix(b"hints"))
        assert len(key.removeprefix(b"shop:v1:")) <= 64


def test_hints_are_found_however_the_stream_is_divided() -> None:
    """Garbage, other channels, malformed and long messages between them are skipped; the rest kept is short."""
    stream = b"".join(
        [
            b"*2\r\n$4\r\npong\r\n$0\r\n\r\n",
            hint(TOKEN),
            message(b"x" * 5000),
            message(TOKEN.removeprefix(b"shop:v1:"), channel=b"other"),
            message(b"{short}:token"),
            message(b"{" + b"\xff" * 32 + b"}:token"),
            message(TOKEN.removeprefix(b"shop:v1:")[:-5] + b"lease"),
            b"-ERR garbage\r\n\x00\xff*3\r\n$-1\r\n",
            hint(SESSION),
            hint(TOKEN),
        ]
    )
    chance = random.Random(7)
    for _ in range(300):
        one = Listening()
        rest, at = b"", 0
        while at < len(stream):
            size = chance.choice((1, 7, 40, 100, 3000))
            rest = one.listener._take(rest + stream[at : at + size])
            assert len(rest) < 128
            at += size
        assert [TOKEN, SESSION, TOKEN] == one.heard or [{TOKEN, SESSION}] == [set(one.heard)]
        assert {TOKEN, SESSION} == set(one.heard)


async def test_a_huge_message_takes_no_memory(redis_server: RedisServer) -> None:
    """A message of 6 MB is skipped while it arrives, and the next hint is heard."""
    async with Listening(redis_server.url) as one:
        tracemalloc.start()
        with redis_server.connect(within=30) as connection:
            await asyncio.to_thread(
                connection.call, "EVAL", "redis.call('PUBLISH', KEYS[1], string.rep('x', 6000000))", 1, CHANNEL
            )
        redis_server.command("PUBLISH", CHANNEL, TOKEN.removeprefix(b"shop:v1:"))
        await until(lambda: [TOKEN] == one.heard, within=20)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2e6
        assert 1 == one.connected


async def test_a_killed_connection_is_made_again(redis_server: RedisServer) -> None:
    """Each connection is reported, so that what was missed is checked."""
    async with Listening(redis_server.url) as one:
        for number in range(2, 5):
            redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda number=number: one.connected == number, within=2)  # type: ignore[misc]


async def test_a_client_that_decodes_or_speaks_resp3_works(redis_server: RedisServer) -> None:
    """The connection has the client's address and login, and its own protocol."""
    for options in ("?protocol=3", "?protocol=2&socket_timeout=0.2", "?health_check_interval=1"):
        async with Listening(redis_server.url + options) as one:
            await asyncio.sleep(0.3)
            redis_server.command("PUBLISH", CHANNEL, TOKEN.removeprefix(b"shop:v1:"))
            await until(lambda one=one: [TOKEN] == one.heard, within=2)  # type: ignore[misc]
            assert 1 == one.connected


async def test_the_pool_of_the_client_is_not_used(redis_server: RedisServer) -> None:
    """A pool of one connection stays free for commands."""
    async with Listening(redis_server.url) as one:
        pool: Any = one.client.connection_pool
        assert not pool._available_connections
        assert not pool._in_use_connections


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"-ERR unknown command 'SUBSCRIBE'\r\n", "unsupported"), (b"-ERR unsupported command\r\n", "response")],
)
async def test_a_proxy_without_publish_is_logged_with_the_fix(
    answer: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that does not know the commands is asked again after a minute, and logged once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(answer if b"PUBLISH" in data else b"+OK\r\n" * data.count(b"*"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        one = Listening(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert reason == await one.listener._listen_once()
        assert reason == await one.listener._listen_once()
    assert 1 == len([record for record in caplog.records if f"Hints off ({reason}" in record.getMessage()])


async def test_a_connection_class_that_cannot_be_used_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Hints are off for such a client, and nothing is raised."""

    class Odd(Connection):
        def __init__(self, **_options: Any) -> None:
            raise LookupError("not for you")

    one = Listening()
    one.client.connection_pool.connection_class = Odd
    assert "client" == await one.listener._listen_once()
    assert "Hints off (client" in caplog.text
    assert "not for you" not in caplog.text


async def test_a_connection_whose_close_raises_is_made_again(redis_server: RedisServer) -> None:
    """The connection class may be the program's own: whatever it raises, the listener goes on."""

    class Odd(Connection):
        async def disconnect(self, *args: Any, **options: Any) -> None:
            await super().disconnect(*args, **options)
            raise LookupError("not for you")

    one = Listening(redis_server.url)
    one.client.connection_pool.connection_class = Odd
    async with one:
        redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: one.connected == 2, within=2)


async def test_a_cancellation_that_is_lost_while_connecting_ends_the_listener(redis_server: RedisServer) -> None:
    """As `asyncio.wait_for` of Python 3.11 loses one; closing the broker waits for the listener."""
    connecting, go_on = asyncio.Event(), asyncio.Event()

    class Losing(Connection):
        async def connect(self, *args: Any, **options: Any) -> None:
            connecting.set()
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
            connect: Any = super().connect  # it has no types
            await connect(*args, **options)

    one = Listening(redis_server.url)
    one.client.connection_pool.connection_class = Losing
    task = asyncio.create_task(one.listener.run())
    await connecting.wait()
    task.cancel()
    _, running = await asyncio.wait([task], timeout=2)
    go_on.set()
    for _ in range(2):
        task.cancel()
        await asyncio.wait([task], timeout=2)
    assert not running
