"""What befalls a Redis, each made and lifted on a real server or on the line to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.faults.proxy_process import Line
from tests.resp import RedisServerError, RespConnection
from tests.servers import RedisServer

__all__ = ["OUTAGES", "Outage", "Place"]


@dataclass
class Place:
    """Where a fault is made.

    Attributes:
        server: The server.
        line: The way to it.
        admin: A connection that was made before the fault.
    """

    server: RedisServer
    line: Line
    admin: RespConnection


Made: TypeAlias = Callable[[Place], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Outage:
    """One fault, which is there between entering and leaving `made`.

    Attributes:
        name: Its row in the table of examples/guides/redis_faults.md.
        made: Makes it and lifts it.
        state: What `status()` says while it lasts; "either" where that depends on the moment.
        direct: Whether the workers come without the line.
        options: More options of the server.
        stall: Seconds for which the workers' own event loop stands still, at every fifth new key.
        heals: Whether all is shared again within the promised time; what Redis evicts waits for its next touch.
    """

    name: str
    made: Made
    state: Literal["up", "down", "either"] = "down"
    direct: bool = False
    options: tuple[str, ...] = ()
    stall: float = 0.0
    heals: bool = True


def _line(**spoilt: float) -> Made:
    """Make a fault of the proxy's: attributes that are set and put back."""

    @asynccontextmanager
    async def made(place: Place) -> AsyncGenerator[None]:
        before = await place.line.spoil(**spoilt)
        if "connect_delay" in spoilt:
            await place.line.cut()
        yield
        await place.line.spoil(**before)

    return made


def _commands(before: list[str], after: list[str] | None = None) -> Made:
    """Make a fault of the server's, by commands; an error reply is what some of them are for."""

    @asynccontextmanager
    async def made(place: Place) -> AsyncGenerator[None]:
        for command in before:
            place.admin.call(*command.split())
        yield
        for command in after or []:
            place.admin.call(*command.split())

    return made


@asynccontextmanager
async def _killed(place: Place) -> AsyncGenerator[None]:
    place.admin.call("SAVE")
    place.server.kill()
    yield
    await asyncio.to_thread(place.server.restart, empty=False)


@asynccontextmanager
async def _killed_and_emptied(place: Place) -> AsyncGenerator[None]:
    place.server.kill()
    yield
    await asyncio.to_thread(place.server.restart)


@asynccontextmanager
async def _restarted_empty(place: Place) -> AsyncGenerator[None]:
    await asyncio.to_thread(place.server.restart)
    yield


def _fill(admin: RespConnection) -> None:
    for number in range(2_000):
        admin.call("SET", f"filler-{number}", os.urandom(1_100))  # which cannot be compressed


@asynccontextmanager
async def _loading(place: Place) -> AsyncGenerator[None]:
    await asyncio.to_thread(_fill, place.admin)
    await asyncio.to_thread(place.server.restart, empty=False, seconds_per_key=0.01)
    yield
    await asyncio.to_thread(place.server.command, "CONFIG", "SET", "key-load-delay", 0)


@asynccontextmanager
async def _frozen(place: Place) -> AsyncGenerator[None]:
    place.server.freeze()
    yield
    place.server.thaw()


@asynccontextmanager
async def _refused(place: Place) -> AsyncGenerator[None]:
    await place.line.refuse()
    await place.line.cut()
    yield
    await place.line.listen()


@asynccontextmanager
async def _nothing(_place: Place) -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def _evicting(place: Place) -> AsyncGenerator[None]:
    used = int(place.admin.call("INFO", "memory").split(b"used_memory:")[1].split(b"\r")[0])
    place.admin.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    place.admin.call("CONFIG", "SET", "maxmemory", used + 500_000)
    for number in range(500):
        with contextlib.suppress(RedisServerError):
            place.admin.call("SET", f"filler-{number}", "x" * 10_000)
    yield
    place.admin.call("CONFIG", "SET", "maxmemory", 0)


def _overwritten(*command: str) -> Made:
    @asynccontextmanager
    async def made(place: Place) -> AsyncGenerator[None]:
        for key in place.admin.call("KEYS", "tokenmw:*"):
            place.admin.call("DEL", key)
            place.admin.call(command[0], key, *command[1:])
        yield

    return made


_KILL = "CLIENT KILL TYPE normal"
_REPLICA = ["CONFIG SET replica-read-only yes", "REPLICAOF 127.0.0.1 1"]

OUTAGES = (
    Outage("killed, and back with its data", _killed, direct=True),
    Outage("killed, and back empty", _killed_and_emptied, direct=True),
    Outage("restarted empty within a moment", _restarted_empty, state="either", direct=True),
    Outage("frozen", _frozen, direct=True),
    Outage("refuses connections", _refused),
    Outage("accepts, and never answers", _line(black_hole=True)),
    Outage("hears all, and its replies are lost", _line(lose_replies=True)),
    Outage("connections end in the middle of a reply", _line(cut_replies=True)),
    Outage("slow by 50 ms", _line(latency=0.025), state="up"),
    Outage("slow by 5 s", _line(latency=2.5)),
    Outage("connecting takes 500 ms", _line(connect_delay=0.5), state="either"),
    Outage("our own event loop stands still for 300 ms", _nothing, state="up", stall=0.3),
    Outage("maxclients is reached", _commands(["CONFIG SET maxclients 1", _KILL], ["CONFIG SET maxclients 1000"])),
    Outage("full, noeviction", _commands(["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"])),
    Outage("full, allkeys-lru", _evicting, state="up", heals=False),
    Outage("a read-only replica", _commands(_REPLICA, ["REPLICAOF NO ONE"])),
    Outage("loading its data", _loading, direct=True),
    Outage(
        "wrong password",
        _commands(["CONFIG SET requirepass another", _KILL], ["CONFIG SET requirepass sesame"]),
        direct=True,
        options=("--requirepass", "sesame"),
    ),
    Outage("its ACL forbids EVAL", _commands(["ACL SETUSER default -eval -evalsha"], ["ACL SETUSER default +@all"])),
    Outage("SCRIPT FLUSH", _commands(["SCRIPT FLUSH"]), state="up"),
    Outage("FLUSHALL", _commands(["FLUSHALL"]), state="up"),
    Outage("our keys have another type", _overwritten("RPUSH", "theirs"), state="up"),
    Outage("our keys hold garbage", _overwritten("SET", "\x00 garbage"), state="up"),
)
