"""Faults between the processes and Redis: delays, resets, lost, doubled and damaged replies, and host names."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.faults.outage import Apply, Outage, by_proxy
from tests.faults.proxy_process import ProxyProcess

if TYPE_CHECKING:
    from tests.faults.outage import Promise, Setup

__all__ = ["NETWORK"]


@asynccontextmanager
async def _refused(setup: Setup) -> AsyncGenerator[None]:
    await setup.proxy.refuse()
    await setup.proxy.cut()
    yield
    await setup.proxy.listen()


@asynccontextmanager
async def _half_closed_once(setup: Setup) -> AsyncGenerator[None]:
    await setup.proxy.half_close_all()
    yield


@asynccontextmanager
async def _nothing(_setup: Setup) -> AsyncGenerator[None]:
    yield


def _name(answer: str) -> Apply:
    """Return a fault of the server's name: open connections are lost, and new ones need the name."""

    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        await setup.resolve(answer)
        await setup.proxy.cut()
        yield
        await setup.resolve("127.0.0.1")

    return apply


@asynccontextmanager
async def _moved(setup: Setup) -> AsyncGenerator[None]:
    async with ProxyProcess(setup.server.port, host="127.0.0.2", port=setup.proxy.port):
        await setup.resolve("127.0.0.2")
        await setup.proxy.refuse()
        await setup.proxy.cut()
        yield
        await setup.proxy.listen()
        await setup.resolve("127.0.0.1")


_IN_USE: Final[dict[Promise, str]] = {
    "bounded in all": "Redis stays in use, as other commands succeed between the failures: each new key waits for it."
}
_TTL: Final = "The TTL of a token is not encrypted: a damaged one is as long as the token's lifetime at most."

NETWORK: Final = (
    Outage("refuses connections", _refused),
    Outage("accepts connections, never replies", by_proxy(black_hole=True)),
    Outage("executes commands, its replies are lost", by_proxy(lose_replies=True)),
    Outage("connections are reset in the middle of a reply", by_proxy(cut_replies=True)),
    Outage("5 % of the chunks reset their connection", by_proxy(reset_share=0.05), state="either", exempt=_IN_USE),
    Outage("closes its half of each connection", by_proxy(half_close=True)),
    Outage("closes its half of open connections once", _half_closed_once, state="up"),
    Outage("slow by 50 ms", by_proxy(latency=0.025), state="up"),
    Outage("slow by 100 to 140 ms", by_proxy(reply_delay=(0.1, 0.14)), state="up"),
    Outage("slow by 160 ms", by_proxy(reply_delay=(0.16, 0.16)), state="up"),
    Outage("slow by 70 to 200 ms", by_proxy(reply_delay=(0.07, 0.2)), state="either", exempt=_IN_USE),
    Outage("slow by 5 s", by_proxy(latency=2.5)),
    Outage("connecting takes 500 ms", by_proxy(connect_delay=0.5), state="either"),
    Outage("replies arrive byte by byte", by_proxy(bytewise=True), state="up"),
    Outage(
        "each reply is doubled",
        by_proxy(double_share=1.0),
        exempt={
            "no other lines": "A command whose reply is doubled succeeds, so earlier failures are logged on their own."
        },
    ),
    Outage("a tenth of the replies is doubled", by_proxy(double_share=0.1), state="either", exempt=_IN_USE),
    Outage(
        "a tenth of the replies is doubled, values are not encrypted",
        by_proxy(double_share=0.1),
        state="either",
        broker={"seal": False},
        exempt=_IN_USE,
    ),
    Outage(
        "each reply is corrupted",
        by_proxy(corrupt_share=1.0),
        state="either",
        exempt={"unexpired": _TTL, "bounded in all": "A damaged reply may be that of a command that succeeded."},
    ),
    # A damaged number in a reply may be a plausible version. Redis stays in use, so nothing shows that it was damaged
    # before the next periodic check.
    Outage(
        "a tenth of the replies is corrupted",
        by_proxy(corrupt_share=0.1),
        state="either",
        recovers=False,
        exempt={"unexpired": _TTL, **_IN_USE},
    ),
    Outage("its host name does not resolve", _name(""), by_name=True),
    Outage("the lookup of its host name hangs", _name("hang"), by_name=True),
    Outage("its host name moves to another address", _moved, state="either", by_name=True),
    Outage("two of four processes are cut off", by_proxy(black_hole=True), workers=4),
    Outage(
        "two of four processes are cut off, random ids",
        by_proxy(black_hole=True),
        workers=4,
        broker={"session_ids": "random"},
        exempt={"new ids": "Each side has a key's random id of its own, until they are connected again."},
    ),
    Outage("the event loop of the process is blocked for 300 ms", _nothing, state="up", stall=0.3),
)
