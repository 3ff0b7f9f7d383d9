"""The line to a server as a process of its own: what else the campaign does must not slow it down.

A proxy in the campaign's own process was held up by the other faults at times, for longer than a command's deadline;
then "slow by 50 ms" was another fault than the one that is made.
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

from tests.processes import Workers, receive, send
from tests.proxies import Proxy

__all__ = ["Line", "forward"]


class Line:
    """A `Proxy` in a child process, which does what it is told before the call returns.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, target: int) -> None:
        self._workers = Workers("tests.faults.proxy_process:forward", processes=1, arguments={"target": target})
        self.port = 0

    async def __aenter__(self) -> Self:
        await self._workers.__aenter__()
        (self.port,) = await self._workers.receive()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._workers.__aexit__(*exc)

    @property
    def url(self) -> str:
        """The way to a Redis behind it."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def spoil(self, **attributes: float) -> dict[str, float]:
        """Set attributes of the proxy, and return what they were."""
        return await self._told({"set": attributes})

    async def cut(self) -> None:
        """Reset all connections that stand."""
        await self._told({"call": "cut"})

    async def refuse(self) -> None:
        """Refuse new connections; those that stand go on."""
        await self._told({"call": "refuse"})

    async def listen(self) -> None:
        """Accept connections, on the port of the last time."""
        await self._told({"call": "listen"})

    async def _told(self, order: dict[str, Any]) -> dict[str, float]:
        await self._workers.send(order)
        answer: dict[str, float]
        (answer,) = await self._workers.receive()
        return answer


async def forward(*, target: int) -> None:
    """Be the child process: forward to a port, and do what the test says, until it ends this."""
    async with Proxy(target) as proxy:
        send(proxy.port)
        while True:
            order = await asyncio.to_thread(receive)
            before: dict[str, float] = {}
            for name, value in order.get("set", {}).items():
                before[name] = getattr(proxy, name)
                setattr(proxy, name, value)
            match order.get("call"):
                case "cut":
                    proxy.cut()
                case "refuse":
                    await proxy.refuse()
                case "listen":
                    await proxy.listen()
                case _:
                    pass
            send(before)
