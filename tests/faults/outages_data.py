"""Faults of what Redis holds: lost, evicted and overwritten keys, and memory that is too small."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.faults.outage import Apply, Outage, by_commands
from tests.resp import RedisServerError

if TYPE_CHECKING:
    from tests.faults.outage import Setup

__all__ = ["DATA"]

_POLICIES: Final = tuple(
    f"{keys}-{order}" for keys, orders in (("allkeys", ("lru", "lfu", "random")),
                                           ("volatile", ("lru", "lfu", "random", "ttl"))) for order in orders
)  # fmt: skip
_FILLER: Final = 10_000  # bytes


@asynccontextmanager
async def _evicting(setup: Setup) -> AsyncGenerator[None]:
    setup.admin.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    setup.admin.call("CONFIG", "SET", "maxmemory", setup.used_memory() + 500_000)
    for number in range(500):
        with contextlib.suppress(RedisServerError):
            setup.admin.call("SET", f"filler-{number}", "x" * _FILLER)
    yield
    setup.admin.call("CONFIG", "SET", "maxmemory", 0)


def _restarted_smaller(policy: str) -> Apply:
    """Return a restart with its data into less memory than they take, and one without a limit afterwards.

    Other keys take half of the memory, and other writes go on. The second restart is the operator's fix. It also is
    what shows the processes that keys may be lost: a session that was evicted otherwise waits for its touch.
    """

    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        empty = setup.used_memory()
        for number in range(200):
            # With a TTL, so that each policy but noeviction may evict them. Random, so that they are not compressed.
            setup.admin.call("SET", f"filler-{number}", os.urandom(_FILLER), "PX", 3_600_000 + number)
        limit = (empty + setup.used_memory()) // 2
        options = ("--maxmemory", str(limit), "--maxmemory-policy", policy)
        await asyncio.to_thread(setup.server.restart, empty=False, options=options)
        with setup.server.connect() as admin:
            for number in range(100):
                with contextlib.suppress(RedisServerError):
                    admin.call("SET", f"more-{number}", os.urandom(_FILLER), "PX", 3_600_000)
            evicted = int(admin.call("INFO", "stats").split(b"evicted_keys:")[1].split(b"\r")[0])
        assert (evicted > 0) == (policy != "noeviction")
        yield
        await asyncio.to_thread(setup.server.restart, empty=False)

    return apply


def _overwritten(*command: str) -> Apply:
    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        for key in setup.admin.call("KEYS", "tokenmw:*"):
            setup.admin.call("DEL", key)
            setup.admin.call(command[0], key, *command[1:])
        yield

    return apply


DATA: Final = (
    Outage("full, noeviction", by_commands(["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"])),
    Outage("full, allkeys-lru", _evicting, state="up", recovers=False),
    Outage("restarted with less memory, noeviction", _restarted_smaller("noeviction"), direct=True),
    *(
        Outage(f"restarted with less memory, {policy}", _restarted_smaller(policy), state="either", direct=True)
        for policy in _POLICIES
    ),
    Outage("FLUSHALL", by_commands(["FLUSHALL"]), state="up"),
    Outage("our keys have another type", _overwritten("RPUSH", "theirs"), state="up"),
    Outage("our keys hold garbage", _overwritten("SET", "\x00 garbage"), state="up"),
)
