"""The faults of Redis, each applied to a real server or to a proxy in front of it, and removed again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.faults.proxy_process import ProxyProcess
from tests.resp import RedisServerError, RespConnection
from tests.servers import RedisServer

__all__ = ["OUTAGES", "Outage", "Setup"]


@dataclass
class Setup:
    """The server and proxy of one fault.

    Attributes:
        server: The server.
        proxy: The proxy in front of it.
        admin: A connection to the server that was opened before the fault.
    """

    server: RedisServer
    proxy: ProxyProcess
    admin: RespConnection


Apply: TypeAlias = Callable[[Setup], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Outage:
    """One fault.

    Attributes:
        name: The first cell of its row in examples/guides/redis_faults.md.
        apply: A context manager that applies the fault and removes it.
        state: `status().shared` during the fault; "either" if it depends on the timing.
        direct: Whether the workers connect to the server without the proxy.
        options: Additional command line options of the server.
        stall: Seconds for which the event loop of the workers is blocked at every fifth new key.
        recovers: Whether everything is shared again within the promised time. An evicted session waits for its touch.
    """

    name: str
    apply: Apply
    state: Literal["up", "down", "either"] = "down"
    direct: bool = False
    options: tuple[str, ...] = ()
    stall: float = 0.0
    recovers: bool = True


def _proxy(**attributes: float) -> Apply:
    """Return a fault of the proxy: attributes that are set, and reset afterwards."""

    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        previous = await setup.proxy.set(**attributes)
        if "connect_delay" in attributes:
            await setup.proxy.cut()
        yield
        await setup.proxy.set(**previous)

    return apply


def _commands(before: list[str], after: list[str] | None = None) -> Apply:
    """Return a fault that is caused by commands, and removed by others."""

    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        for command in before:
            setup.admin.call(*command.split())
        yield
        for command in after or []:
            setup.admin.call(*command.split())

    return apply


@asynccontextmanager
async def _killed(setup: Setup) -> AsyncGenerator[None]:
    setup.admin.call("SAVE")
    setup.server.kill()
    yield
    await asyncio.to_thread(setup.server.restart, empty=False)


@asynccontextmanager
async def _killed_and_emptied(setup: Setup) -> AsyncGenerator[None]:
    setup.server.kill()
    yield
    await asyncio.to_thread(setup.server.restart)


@asynccontextmanager
async def _restarted_empty(setup: Setup) -> AsyncGenerator[None]:
    await asyncio.to_thread(setup.server.restart)
    yield


def _fill(admin: RespConnection) -> None:
    for number in range(2_000):
        admin.call("SET", f"filler-{number}", os.urandom(1_100))  # random, so that the server cannot compress it


@asynccontextmanager
async def _loading(setup: Setup) -> AsyncGenerator[None]:
    await asyncio.to_thread(_fill, setup.admin)
    await asyncio.to_thread(setup.server.restart, empty=False, seconds_per_key=0.01)
    yield
    await asyncio.to_thread(setup.server.command, "CONFIG", "SET", "key-load-delay", 0)


@asynccontextmanager
async def _frozen(setup: Setup) -> AsyncGenerator[None]:
    setup.server.freeze()
    yield
    setup.server.thaw()


@asynccontextmanager
async def _refused(setup: Setup) -> AsyncGenerator[None]:
    await setup.proxy.refuse()
    await setup.proxy.cut()
    yield
    await setup.proxy.listen()


@asynccontextmanager
async def _nothing(_setup: Setup) -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def _evicting(setup: Setup) -> AsyncGenerator[None]:
    used = int(setup.admin.call("INFO", "memory").split(b"used_memory:")[1].split(b"\r")[0])
    setup.admin.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    setup.admin.call("CONFIG", "SET", "maxmemory", used + 500_000)
    for number in range(500):
        with contextlib.suppress(RedisServerError):
            setup.admin.call("SET", f"filler-{number}", "x" * 10_000)
    yield
    setup.admin.call("CONFIG", "SET", "maxmemory", 0)


def _overwritten(*command: str) -> Apply:
    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        for key in setup.admin.call("KEYS", "tokenmw:*"):
            setup.admin.call("DEL", key)
            setup.admin.call(command[0], key, *command[1:])
        yield

    return apply


_KILL_CLIENTS = "CLIENT KILL TYPE normal"
_REPLICA = ["CONFIG SET replica-read-only yes", "REPLICAOF 127.0.0.1 1"]

OUTAGES = (
    Outage("killed, and restarted with its data", _killed, direct=True),
    Outage("killed, and restarted empty", _killed_and_emptied, direct=True),
    Outage("restarted empty immediately", _restarted_empty, state="either", direct=True),
    Outage("frozen", _frozen, direct=True),
    Outage("refuses connections", _refused),
    Outage("accepts connections, never replies", _proxy(black_hole=True)),
    Outage("executes commands, its replies are lost", _proxy(lose_replies=True)),
    Outage("connections are reset in the middle of a reply", _proxy(cut_replies=True)),
    Outage("slow by 50 ms", _proxy(latency=0.025), state="up"),
    Outage("slow by 5 s", _proxy(latency=2.5)),
    Outage("connecting takes 500 ms", _proxy(connect_delay=0.5), state="either"),
    Outage("the event loop of the process is blocked for 300 ms", _nothing, state="up", stall=0.3),
    Outage(
        "maxclients is reached", _commands(["CONFIG SET maxclients 1", _KILL_CLIENTS], ["CONFIG SET maxclients 1000"])
    ),
    Outage("full, noeviction", _commands(["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"])),
    Outage("full, allkeys-lru", _evicting, state="up", recovers=False),
    Outage("a read-only replica", _commands(_REPLICA, ["REPLICAOF NO ONE"])),
    Outage("loading its data", _loading, direct=True),
    Outage(
        "wrong password",
        _commands(["CONFIG SET requirepass another", _KILL_CLIENTS], ["CONFIG SET requirepass sesame"]),
        direct=True,
        options=("--requirepass", "sesame"),
    ),
    Outage("its ACL forbids EVAL", _commands(["ACL SETUSER default -eval -evalsha"], ["ACL SETUSER default +@all"])),
    Outage("SCRIPT FLUSH", _commands(["SCRIPT FLUSH"]), state="up"),
    Outage("FLUSHALL", _commands(["FLUSHALL"]), state="up"),
    Outage("our keys have another type", _overwritten("RPUSH", "theirs"), state="up"),
    Outage("our keys hold garbage", _overwritten("SET", "\x00 garbage"), state="up"),
)
