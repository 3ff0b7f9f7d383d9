"""Connections that are made in a task of their own.

A command's deadline is short, a TLS handshake across a continent is not. Were the handshake cut at the deadline, the
next command would begin it anew, and a healthy server would never be reached. So who waits for a connection may leave,
the dialling goes on, and the next command finds the connection made.

The scripts that a server does not know yet are part of it, too: a request never pays the second round trip for them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenmw.redis.scripts import load_scripts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["BACKGROUND_CONNECTIONS", "BackgroundCluster", "BackgroundConnection"]


class _Dial:
    """One task at a time that makes something; who waits for it may be cancelled without cutting it short."""

    __slots__ = ("began", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.began = 0.0

    @property
    def mine(self) -> bool:
        """Whether this is asked from inside of the dialling."""
        if self.task is None:
            return False
        try:
            return asyncio.current_task() is self.task
        except RuntimeError:
            return False  # no loop runs: the interpreter is cleaning up

    async def wait(self, make: Callable[[], Awaitable[Any]], *, seconds: float | None) -> None:
        """Begin a dialling, bounded by so many seconds, and wait for it."""
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self.task = loop.create_task(_within(make, seconds))
        self.task.add_done_callback(self._done)
        await self.join()

    async def join(self) -> None:
        """Wait for the dialling that is under way. What it raises is raised."""
        task = self.task
        if task is None:
            return
        await asyncio.wait([task])
        if task.cancelled():
            # A CancelledError here would look as if the waiter itself had been cancelled.
            raise RedisConnectionError("The client was closed.")
        task.result()

    async def end(self) -> None:
        """End a dialling that is under way."""
        if self.task is not None:
            task = self.task
            task.cancel()
            await asyncio.wait([task])

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.task = None
        if not task.cancelled():
            task.exception()  # looked at, even if all who waited have left


async def _within(make: Callable[[], Awaitable[Any]], seconds: float | None) -> None:
    # redis-py bounds each step of the handshake; the steps of a server that trickles add up.
    try:
        async with asyncio.timeout(seconds):
            await make()
    except TimeoutError:
        raise RedisTimeoutError("Timeout connecting to server") from None


class BackgroundConnection(AbstractConnection):
    """A connection that is made in a task of its own."""

    _dial: _Dial

    def __init__(self, **options: Any) -> None:
        self._dial = _Dial()
        super().__init__(**options)
        self._introduction = _introduction(self)

    @property
    def is_connected(self) -> bool:
        """Whether commands can be sent: not before the handshake is over, else they would get its replies."""
        if self._dial.task is not None and not self._dial.mine:
            return False
        return bool(super().is_connected)

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect; the name is redis-py's, and all its ways to a connection come through here."""
        if self._dial.mine:
            raise RedisConnectionError("The connection was lost in the handshake.")
        if self._dial.task is not None:
            await self._dial.join()
        elif not self.is_connected:
            connect = super().connect_check_health

            async def make() -> None:
                await connect(*args, **options)
                try:
                    await load_scripts(self, first=self._introduction)
                except RedisError:
                    await self.disconnect(nowait=True)  # as redis-py does when its part of the handshake fails
                    raise

            await self._dial.wait(make, seconds=self.socket_connect_timeout)

    def dialling_before(self, moment: float) -> bool:
        """Return whether it is being made, and was begun before a time of the event loop's."""
        return self._dial.task is not None and self._dial.began < moment

    async def abort(self) -> None:
        """End the connection at once, whether it stands or is being made."""
        await self._dial.end()
        # close() would wait until a server that hangs has taken what was sent, or has answered TLS's farewell.
        if self._writer is not None:
            self._writer.transport.abort()
        await self.disconnect(nowait=True)


def _introduction(connection: Any) -> list[tuple[str, ...]]:
    """Take over what redis-py tells a server of itself, which would be a round trip of its own."""
    # Up to redis-py 7 two attributes, since then one with both.
    driver = getattr(connection, "driver_info", None)
    name, version = (
        (driver.formatted_name, driver.lib_version)
        if driver
        else (
            getattr(connection, "lib_name", None),
            getattr(connection, "lib_version", None),
        )
    )
    connection.driver_info = connection.lib_name = connection.lib_version = None
    told = {"LIB-NAME": name, "LIB-VER": version}
    return [("CLIENT", "SETINFO", key, value) for key, value in told.items() if value]


class _TCP(BackgroundConnection, Connection):
    pass


class _TLS(BackgroundConnection, SSLConnection):
    pass


class _Unix(BackgroundConnection, UnixDomainSocketConnection):
    pass


BACKGROUND_CONNECTIONS: Final[dict[type[AbstractConnection], type[BackgroundConnection]]] = {
    Connection: _TCP,
    SSLConnection: _TLS,
    UnixDomainSocketConnection: _Unix,
}


class BackgroundCluster(redis.RedisCluster):
    """A cluster whose slots are looked up in a task of its own, too."""

    def __init__(self, *, opening_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._opening = _Dial()
        self._opening_seconds = opening_seconds
        # redis-py takes no class as an option; nodes that are found later get theirs from this dict.
        dialled: Any = BACKGROUND_CONNECTIONS[self.connection_kwargs["connection_class"]]
        self.connection_kwargs["connection_class"] = dialled
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = dialled

    async def initialize(self, *args: Any, **options: Any) -> BackgroundCluster:
        """Look up the slots, unless they are known."""
        if self._opening.task is not None:
            await self._opening.join()
        elif self._initialize:
            look_up = super().initialize
            await self._opening.wait(lambda: look_up(*args, **options), seconds=self._opening_seconds)
        return self

    async def abort(self) -> None:
        """End all connections at once."""
        await self._opening.end()
        nodes = [*self.nodes_manager.nodes_cache.values(), *self.nodes_manager.startup_nodes.values()]
        await abort(connection for node in nodes for connection in list(node._connections))


async def abort(connections: Iterable[object]) -> None:
    """End those of the connections that are ours."""
    for connection in [*connections]:
        if isinstance(connection, BackgroundConnection):
            await connection.abort()
