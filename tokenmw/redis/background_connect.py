"""Connections that are made in a background task.

The deadline of a command is short, a TLS handshake across a continent is not. If the deadline interrupted the
handshake, the next command would begin a new one, and a healthy server would never be reached. So a command that waits
for a connection may give up while the task goes on connecting, and the next command uses the connection.

When the connection is made, the deadline of the command that has waited for it starts again.

The handshake includes loading the scripts that the server does not know, so that no request pays for that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import redis as redis_py
import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenmw.redaction import Unpicklable
from tokenmw.redis.deadline import connection_made
from tokenmw.redis.name_lookup import NameLookups
from tokenmw.redis.scripts import load_scripts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["BACKGROUND_CONNECTIONS", "BackgroundCluster", "BackgroundConnection", "abort"]

# Of the time for connecting: what takes longer is reported as a name that does not resolve, and not as a slow server.
_LOOKUP_SHARE: Final = 0.8
_VERSION_OPTIONS: Final = frozenset({"driver_info", "lib_name", "lib_version"})


class _Connecting(Unpicklable):
    """One task at a time that makes a connection. A cancelled waiter does not cancel the task."""

    __slots__ = ("began", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.began = 0.0

    @property
    def is_current_task(self) -> bool:
        """Whether the caller runs inside of the task."""
        if self.task is None:
            return False
        try:
            return asyncio.current_task() is self.task
        except RuntimeError:
            return False  # no event loop runs: the interpreter is shutting down

    async def start(self, connect: Callable[[], Awaitable[Any]], *, seconds: float | None) -> None:
        """Start the task, which may take `seconds` in all, and wait for it. Raises what `connect` raises."""
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self.task = loop.create_task(_within(connect, seconds))
        self.task.add_done_callback(self._done)
        await self.join()

    async def join(self) -> None:
        """Wait for the task, if there is one. Raises what it raises."""
        task = self.task
        if task is None:
            return
        await asyncio.wait([task])
        if task.cancelled():
            # A CancelledError here would look as if the waiter itself had been cancelled.
            raise RedisConnectionError("The client was closed.")
        task.result()

    async def abort(self) -> None:
        """Cancel the task, if there is one."""
        if self.task is not None:
            task = self.task
            task.cancel()
            await asyncio.wait([task])

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.task = None
        if not task.cancelled():
            task.exception()  # marks it as retrieved if all waiters have given up


async def _within(connect: Callable[[], Awaitable[Any]], seconds: float | None) -> None:
    # redis-py bounds each step of the handshake only; with a server that sends byte by byte, the steps add up.
    try:
        async with asyncio.timeout(seconds):
            await connect()
    except TimeoutError:
        raise RedisTimeoutError("Timeout connecting to server") from None


class BackgroundConnection(Unpicklable, AbstractConnection):
    """A connection that is made in a background task."""

    _connecting: _Connecting

    def __init__(self, **options: Any) -> None:
        self._connecting = _Connecting()
        super().__init__(**_with_version(options))
        self._client_info = _take_client_info(self)

    @property
    def is_connected(self) -> bool:
        """Whether commands can be sent: not during the handshake, or they would read its replies."""
        if self._connecting.task is not None and not self._connecting.is_current_task:
            return False
        return bool(super().is_connected)

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect. redis-py calls this method, whose name it chose, wherever it needs a connection."""
        if self._connecting.is_current_task:
            raise RedisConnectionError("The connection was lost in the handshake.")
        if self._connecting.task is not None:
            await self._connecting.join()
            connection_made()
        elif not self.is_connected:
            connect = super().connect_check_health

            async def connect_and_load() -> None:
                await connect(*args, **options)
                try:
                    await load_scripts(self, first=self._client_info)
                except Exception:  # uvloop raises a RuntimeError for a write to a connection that was reset
                    await self.disconnect(nowait=True)  # as redis-py does when its part of the handshake fails
                    raise

            await self._connecting.start(connect_and_load, seconds=self.socket_connect_timeout)
            connection_made()

    def connecting_since_before(self, time: float) -> bool:
        """Return whether it is being made, and was begun before a time of the event loop's."""
        return self._connecting.task is not None and self._connecting.began < time

    async def abort(self) -> None:
        """Close the connection at once, whether it is open or being made."""
        await self._connecting.abort()
        # close() would wait for a server that hangs to read what was sent, or to answer the TLS close notification.
        if self._writer is not None:
            self._writer.transport.abort()
        await self.disconnect(nowait=True)


def _with_version(options: dict[str, Any]) -> dict[str, Any]:
    """Return a connection's options with redis-py's version, which it would read from disk for each connection."""
    if _DRIVER_INFO is None or not _VERSION_OPTIONS.isdisjoint(options):
        return options
    return {**options, "driver_info": _DRIVER_INFO}


def _driver_info() -> Any:
    made: Any = getattr(redis_py, "DriverInfo", None)  # since redis-py 7.2; before, the version was read once
    return None if made is None else made(lib_version=redis_py.__version__)


_DRIVER_INFO: Final = _driver_info()  # of all connections


def _take_client_info(connection: Any) -> list[tuple[str, ...]]:
    """Return the commands that name redis-py to the server, so that it does not send them in its own round trip."""
    # Up to redis-py 7 there are two attributes, since then one that has both.
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
    info = {"LIB-NAME": name, "LIB-VER": version}
    return [("CLIENT", "SETINFO", key, value) for key, value in info.items() if value]


class _TCP(BackgroundConnection, Connection):
    """A connection to a host and port; the name is looked up outside of the event loop's default executor."""

    def __init__(self, *, lookups: NameLookups | None = None, **options: Any) -> None:
        self._lookups = lookups or NameLookups()
        self._address = ""
        super().__init__(**options)

    async def _connect(self) -> None:
        bound = self.socket_connect_timeout
        seconds = None if bound is None else bound * _LOOKUP_SHARE
        addresses = await self._lookups.addresses(self.host, seconds=seconds)
        for number, self._address in enumerate(addresses, 1):
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except OSError:
                if number == len(addresses):
                    raise
            else:
                return

    def _connection_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {**super()._connection_arguments(), "host": self._address}
        return {**arguments, "server_hostname": self.host} if "ssl" in arguments else arguments


class _TLS(_TCP, SSLConnection):
    pass


class _Unix(BackgroundConnection, UnixDomainSocketConnection):
    pass


BACKGROUND_CONNECTIONS: Final[dict[type[AbstractConnection], type[BackgroundConnection]]] = {
    Connection: _TCP,
    SSLConnection: _TLS,
    UnixDomainSocketConnection: _Unix,
}


class BackgroundCluster(Unpicklable, redis.RedisCluster):  # type: ignore[misc]  # two of the library's own bases disagree
    """A cluster client that also looks up the slots in a background task."""

    def __init__(self, *, lookup_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._lookup = _Connecting()
        self._lookup_seconds = lookup_seconds
        # redis-py has no option for the class; nodes that are found later get theirs from this dict.
        connection_class: Any = BACKGROUND_CONNECTIONS[self.connection_kwargs["connection_class"]]
        self.connection_kwargs["connection_class"] = connection_class
        self.connection_kwargs["lookups"] = NameLookups()
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = connection_class
            node.connection_kwargs["lookups"] = self.connection_kwargs["lookups"]

    async def initialize(self, *args: Any, **options: Any) -> BackgroundCluster:
        """Look up the slots, unless they are known."""
        if self._lookup.task is not None:
            await self._lookup.join()
        elif self._initialize:
            look_up = super().initialize
            await self._lookup.start(lambda: look_up(*args, **options), seconds=self._lookup_seconds)
        return self

    async def abort(self) -> None:
        """Close all connections at once."""
        await self._lookup.abort()
        nodes = [*self.nodes_manager.nodes_cache.values(), *self.nodes_manager.startup_nodes.values()]
        await abort(connection for node in nodes for connection in list(node._connections))


async def abort(connections: Iterable[object]) -> None:
    """Close those of the connections at once that are of a class above; others belong to the user's client."""
    for connection in [*connections]:
        if isinstance(connection, BackgroundConnection):
            await connection.abort()
