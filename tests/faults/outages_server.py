"""Faults of the server itself: it is killed, frozen, loading, read-only, or refuses what it is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.faults.outage import Outage, by_commands

if TYPE_CHECKING:
    from tests.faults.outage import Setup
    from tests.resp import RespConnection

__all__ = ["SERVER"]


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


_KILL_CLIENTS: Final = "CLIENT KILL TYPE normal"
_REPLICA: Final = ["CONFIG SET replica-read-only yes", "REPLICAOF 127.0.0.1 1"]

SERVER: Final = (
    Outage("killed, and restarted with its data", _killed, direct=True),
    Outage("killed, and restarted empty", _killed_and_emptied, direct=True),
    Outage("restarted empty immediately", _restarted_empty, state="either", direct=True),
    Outage("frozen", _frozen, direct=True),
    Outage(
        "maxclients is reached",
        by_commands(["CONFIG SET maxclients 1", _KILL_CLIENTS], ["CONFIG SET maxclients 1000"]),
    ),
    Outage("a read-only replica", by_commands(_REPLICA, ["REPLICAOF NO ONE"])),
    Outage("loading its data", _loading, direct=True),
    Outage(
        "wrong password",
        by_commands(["CONFIG SET requirepass another", _KILL_CLIENTS], ["CONFIG SET requirepass sesame"]),
        direct=True,
        options=("--requirepass", "sesame"),
    ),
    Outage("its ACL forbids EVAL", by_commands(["ACL SETUSER default -eval -evalsha"], ["ACL SETUSER default +@all"])),
    Outage("SCRIPT FLUSH", by_commands(["SCRIPT FLUSH"]), state="up"),
)
