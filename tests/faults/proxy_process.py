"""A `Proxy` in a process of its own, so that the other work of the campaign does not delay it.

In the campaign's own process, other faults at times delayed the proxy for longer than the deadline of a command. Then
"slow by 50 ms" was a different fault from the one under test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

from tests.processes import Workers, receive, send
from tests.proxies import Proxy

__all__ = ["ProxyProcess", "Value", "forward"]

Value: TypeAlias = float | Sequence[float]
"""Of an attribute of the proxy."""


class ProxyProcess:
    """A `Proxy` in a child process. A call returns when the proxy has done it.

    It listens on a host and port of this machine; 0 is a free port.

    Attributes:
        port: The port of the proxy.
    """

    def __init__(self, target: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        arguments = {"target": target, "host": host, "port": port}
        self._workers = Workers("tests.faults.proxy_process:forward", processes=1, arguments=arguments)
        self._host = host
        self.port = port

    async def __aenter__(self) -> Self:
        await self._workers.__aenter__()
        (self.port,) = await self._workers.receive()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._workers.__aexit__(*exc)

    @property
    def url(self) -> str:
        """The URL of a Redis server behind the proxy."""
        return f"redis://{self._host}:{self.port}/0"

    async def set(self, **attributes: Value) -> dict[str, Value]:
        """Set attributes of the proxy, and return their previous values."""
        return await self._run({"set": attributes})

    async def cut(self) -> None:
        """Reset all open connections."""
        await self._run({"call": "cut"})

    async def half_close_all(self) -> None:
        """Close the writing half of all open connections, and drop what their clients send from now on."""
        await self._run({"call": "half_close_all"})

    async def refuse(self) -> None:
        """Refuse new connections; open ones are not changed."""
        await self._run({"call": "refuse"})

    async def listen(self) -> None:
        """Accept connections again, on the same port."""
        await self._run({"call": "listen"})

    async def _run(self, command: dict[str, Any]) -> dict[str, Value]:
        await self._workers.send(command)
        previous: dict[str, Value]
        (previous,) = await self._workers.receive()
        return previous


async def forward(*, target: int, host: str, port: int) -> None:
    """Run the proxy and the test's commands, in the child process, until the test kills it."""
    async with Proxy(target, host=host, port=port) as proxy:
        send(proxy.port)
        while True:
            command = await asyncio.to_thread(receive)
            previous: dict[str, Value] = {}
            for name, value in command.get("set", {}).items():
                previous[name] = getattr(proxy, name)
                setattr(proxy, name, value)
            match command.get("call"):
                case "cut":
                    proxy.cut()
                case "half_close_all":
                    proxy.half_close_all()
                case "refuse":
                    await proxy.refuse()
                case "listen":
                    await proxy.listen()
                case _:
                    pass
            send(previous)
