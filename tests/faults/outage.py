"""One fault of Redis: how it is applied and removed again, and which promises hold meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from tests.faults.proxy_process import ProxyProcess, Value
from tests.processes import Workers
from tests.resp import RespConnection
from tests.servers import RedisServer

__all__ = ["Apply", "Outage", "Promise", "Setup", "by_commands", "by_proxy"]

Promise: TypeAlias = Literal["unexpired", "bounded in all", "new ids", "no other lines"]


@dataclass
class Setup:
    """The processes of one fault.

    Attributes:
        server: The server.
        proxies: The proxies in front of it, each for two workers; none if they connect to the server itself.
        admin: A connection to the server that was opened before the fault.
        workers: The workers under load.
    """

    server: RedisServer
    proxies: Sequence[ProxyProcess]
    admin: RespConnection
    workers: Workers

    @property
    def proxy(self) -> ProxyProcess:
        """The proxy of the first two workers, which makes the fault."""
        return self.proxies[0]

    async def resolve(self, answer: str) -> None:
        """Let the name of the server resolve to an address in all workers; "" fails, and "hang" does not end."""
        await self.workers.send({"resolve": answer})
        await self.workers.receive()

    def used_memory(self) -> int:
        """Return the bytes that the server uses."""
        info: bytes = self.admin.call("INFO", "memory")
        return int(info.split(b"used_memory:")[1].split(b"\r")[0])


Apply: TypeAlias = Callable[[Setup], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Outage:
    """One fault.

    Attributes:
        name: The first cell of its row in examples/guides/redis_faults.md.
        apply: A context manager that applies the fault and removes it.
        state: `status().shared` during the fault; "either" if it depends on the timing.
        direct: Whether the workers connect to the server without the proxy.
        by_name: Whether the workers connect to the proxy by a host name.
        client: Which client the workers have, "redis-py" or "glide".
        workers: Their number, 2 or 4. Of four, the last two have another proxy, without a fault.
        options: Additional command line options of the server.
        broker: Additional options of the workers' brokers.
        stall: Seconds for which the event loop of the workers is blocked at every fifth new key.
        recovers: Whether everything is shared again within the promised time. An evicted session waits for its touch.
        exempt: Promises that cannot hold, with the reason.
    """

    name: str
    apply: Apply
    state: Literal["up", "down", "either"] = "down"
    direct: bool = False
    by_name: bool = False
    client: Literal["redis-py", "glide"] = "redis-py"
    workers: int = 2
    options: tuple[str, ...] = ()
    broker: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    stall: float = 0.0
    recovers: bool = True
    exempt: Mapping[Promise, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def states(self) -> list[str]:
        """The state of each worker; those behind the other proxy have no fault."""
        return [self.state, self.state, *["up"] * (self.workers - 2)]


def by_proxy(**attributes: Value) -> Apply:
    """Return a fault of the proxy: attributes that are set, and reset afterwards."""

    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        previous = await setup.proxy.set(**attributes)
        if "connect_delay" in attributes:
            await setup.proxy.cut()
        yield
        await setup.proxy.set(**previous)

    return apply


def by_commands(before: list[str], after: list[str] | None = None) -> Apply:
    """Return a fault that is caused by commands, and removed by others."""

    @asynccontextmanager
    async def apply(setup: Setup) -> AsyncGenerator[None]:
        for command in before:
            setup.admin.call(*command.split())
        yield
        for command in after or []:
            await asyncio.to_thread(setup.admin.call, *command.split())

    return apply
