"""The Redis client: made here from a URL, or given by the user.

redis-py's defaults do not suit the path of a request: it retries a refused port for four seconds, waits a minute for a
server that hangs, and raises for the 101st concurrent command. A client made here retries nothing, lets commands wait
for a connection, and connects in a background task, so that the short deadline of a command never interrupts a slow
TLS handshake.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

import redis.asyncio as redis
from redis import __version__ as redis_version
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.redis.background_connect import BACKGROUND_CONNECTIONS, BackgroundCluster, BackgroundConnection, abort

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AnyClient",
    "abort_connecting",
    "address_of",
    "checked_redis",
    "close_client",
    "open_client",
    "refresh_slots",
]

AnyClient: TypeAlias = "redis.Redis | redis.RedisCluster"

_SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
_CLUSTER_SINCE: Final = (8, 0, 1)  # the first redis-py whose nodes release the connection of a cancelled command
_MAINTENANCE: Final = "maint_notifications_config"
_REFRESH_SECONDS: Final = 1.0


def checked_redis(given: object) -> str | AnyClient:
    """Return the `redis` option if it can work. Nothing is connected.

    Raises:
        ConfigurationError: It is neither a valid URL of a known scheme nor a client of `redis.asyncio`, or it is a
            client that decodes responses: sealed values are bytes.
    """
    if isinstance(given, str):
        _check_url(given)
        return given
    if isinstance(given, (redis.Redis, redis.RedisCluster)):
        if _connection_kwargs(given).get("decode_responses"):
            raise ConfigurationError(
                "redis: the client has decode_responses=True, but values are bytes: create it without that option."
            )
        return given
    kind, module, hint = type(given).__name__, type(given).__module__, ""
    if module.startswith("redis.asyncio."):
        hint = " For a pool, pass redis.asyncio.Redis(connection_pool=pool); for a Sentinel, sentinel.master_for(name)."
    elif module.split(".")[0] == "redis":
        kind = f"the sync {kind}"
        hint = " A sync client would block the event loop: create it with redis.asyncio."
    raise ConfigurationError(
        f"redis must be a URL, a redis.asyncio.Redis or a redis.asyncio.RedisCluster, not {kind}.{hint}"
    )


def _connection_kwargs(client: AnyClient) -> dict[str, Any]:
    if isinstance(client, redis.RedisCluster):
        return dict(client.connection_kwargs)
    return dict(client.connection_pool.connection_kwargs)


def _check_url(url: str) -> None:
    # Creating client and connection connects nothing, and raises for options that redis-py would refuse at first use.
    try:
        client, _ours = open_client(url, limits=Limits())
        if isinstance(client, redis.Redis):
            pool = client.connection_pool
            pool.connection_class(**pool.connection_kwargs)
    except ConfigurationError:
        raise
    except (TypeError, ValueError, OSError, RedisError, RedisClusterException) as error:
        # The text must not even name the option: behind an unquoted "?" it is a part of the password.
        kind = type(error).__name__
    else:
        return
    # Raised outside of the `except`, so that the error that quotes the URL is not its context.
    raise ConfigurationError(
        f"redis: the URL has a host, a port or an option after the ? that is not valid ({kind}). "
        "Write special characters in a password as %XX."
    )


def _url_kwargs(url: str) -> dict[str, Any]:
    # No error quotes the URL: it contains the password.
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ConfigurationError(
            f"redis: the URL must begin with one of {known}. For a Sentinel, pass sentinel.master_for(name)."
        )
    parsed = _parse(url, without_cluster=scheme.removesuffix("+cluster") + separator + rest)
    if parsed is None:
        raise ConfigurationError(
            "redis: the URL is malformed: its host, its port or an option after the ? is not valid. "
            "Write special characters in a password as %XX."
        )
    parts, port, kwargs = parsed
    if port == 0 or (scheme != "unix" and parts.netloc.endswith(":")):
        # An environment variable that is not set leaves such a URL; redis-py would use its default.
        raise ConfigurationError("redis: the URL has a colon without a port from 1 to 65535: omit the colon for 6379.")
    database = parts.path.strip("/")
    if scheme != "unix" and database and not database.isdecimal():
        raise ConfigurationError("redis: the URL's path must be a database number, such as redis://host:6379/0.")
    if scheme == "unix" and not parts.path:
        raise ConfigurationError("redis: a unix:// URL needs the socket's path, such as unix:///run/redis.sock?db=0.")
    if "cluster" in scheme and kwargs.get("db"):
        raise ConfigurationError("redis: a cluster has only database 0: remove the number from the URL.")
    if kwargs.get("decode_responses"):
        raise ConfigurationError("redis: values are bytes: remove decode_responses from the URL.")
    if "cluster" in scheme and tuple(map(int, re.findall(r"\d+", redis_version)[:3])) < _CLUSTER_SINCE:
        needed = ".".join(map(str, _CLUSTER_SINCE))
        raise ConfigurationError(
            f"redis: with redis-py {redis_version} a cluster node that hung once would never be used again: "
            f'`pip install "redis>={needed}"`.'
        )
    return kwargs


def _parse(url: str, *, without_cluster: str) -> tuple[SplitResult, int | None, dict[str, Any]] | None:
    # Returns None instead of raising, because the text of the error would quote a part of the URL.
    try:
        parts = urlsplit(url)
        port, kwargs = parts.port, dict(parse_url(without_cluster))
    except ValueError:
        return None
    # An unquoted "?" or "#" in a password: what precedes it would be taken for host and port, and be logged as such.
    cut = parts.fragment or any(option and "=" not in option for option in parts.query.split("&"))
    return None if cut else (parts, port, kwargs)


def open_client(given: str | AnyClient, *, limits: Limits) -> tuple[AnyClient, bool]:
    """Return a client for this event loop, and whether it was created here and so has to be closed here.

    Nothing is connected yet.
    """
    if not isinstance(given, str):
        return given, False
    kwargs: dict[str, Any] = {
        # The guard bounds commands, and the background task bounds the handshake. With a timeout of its own, redis-py
        # sends through asyncio.wait_for, which on Python 3.11 can lose a cancellation in the same turn of the loop.
        "socket_timeout": None,
        "socket_connect_timeout": limits.connect_seconds,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": limits.connections,
        "protocol": 3,
        **_no_maintenance(),
        **_url_kwargs(given),
    }
    connection_class = kwargs.pop("connection_class", Connection)
    if "+cluster" in given.partition("://")[0]:
        kwargs.setdefault("host", "localhost")
        kwargs["ssl"] = connection_class is SSLConnection
        return BackgroundCluster(lookup_seconds=limits.connect_seconds, **kwargs), True
    # The pool waits without a limit: the guard's deadline also covers the wait for a connection.
    pool = BlockingConnectionPool(timeout=None, connection_class=BACKGROUND_CONNECTIONS[connection_class], **kwargs)
    return redis.Redis(connection_pool=pool), True


def _no_maintenance() -> dict[str, Any]:
    # A feature of one vendor's server, on by default since redis-py 8.1; with it, pools skip a check for stale data.
    # redis-py 7.0 has the module for its sync clients only, so the option is looked up where it would be passed.
    if _MAINTENANCE not in signature(cast("Callable[..., Any]", AbstractConnection.__init__)).parameters:
        return {}
    from redis.maint_notifications import MaintNotificationsConfig

    return {_MAINTENANCE: MaintNotificationsConfig(enabled=False)}


def address_of(client: AnyClient, node: str = "") -> str:
    """Return a server's address for the log: host and port, or the socket's path; never a user or a password.

    Args:
        client: The client.
        node: A cluster node's name, which is its address; "" for a single server, or while no node is known.
    """
    if isinstance(client, redis.RedisCluster):
        return node or next(iter(client.nodes_manager.startup_nodes), "cluster")
    pool: Any = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        # Which server is the primary is known once the Sentinels were asked.
        primary: tuple[str, int] | None = cast("Any", pool).master_address
        return _host_port(*primary) if primary else f"Sentinel's {pool.service_name}"
    kwargs = pool.connection_kwargs
    if path := kwargs.get("path"):
        return str(path).rpartition("@")[2]  # an unquoted "/" in a URL's password makes the rest of it part of the path
    return _host_port(kwargs.get("host", "localhost"), kwargs.get("port", 6379))


def _host_port(host: object, port: object) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


async def refresh_slots(client: AnyClient) -> None:
    """Ask a cluster again which node has which slot, for a second at most. Does nothing for a single server.

    A node that hangs raises no error on which redis-py would do so itself.
    """
    if isinstance(client, redis.RedisCluster):
        with suppress(RedisError, RedisClusterException, OSError):  # the next failed probe asks again
            async with asyncio.timeout(_REFRESH_SECONDS):
                await client.nodes_manager.initialize()


async def abort_connecting(client: AnyClient, *, before: float) -> None:
    """Abort the connection attempts of a client created here that began before a time of the event loop's.

    What was begun while the server was unavailable may hang for as long as connecting may take, because its packets
    were lost. The pool would still give it to a command, which would fail although the server has recovered.
    """
    if isinstance(client, redis.Redis) and issubclass(client.connection_pool.connection_class, BackgroundConnection):
        await abort(
            connection
            for connection in _connections(client)
            if isinstance(connection, BackgroundConnection) and connection.connecting_since_before(before)
        )


async def close_client(client: AnyClient) -> None:
    """Close a client created here at once, even while it waits for a server that does not respond."""
    if isinstance(client, BackgroundCluster):
        await client.abort()
    elif isinstance(client, redis.Redis):
        await abort(_connections(client))
    with suppress(RedisError, OSError):  # a server that closed the connection first changes nothing
        await client.aclose()


def _connections(client: redis.Redis) -> list[object]:
    # redis-py has no public access to connections that are being made.
    pool = client.connection_pool
    return [*pool._available_connections, *pool._in_use_connections]
