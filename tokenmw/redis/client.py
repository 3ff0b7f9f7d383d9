"""The Redis client: made here from a URL, or given by the user.

redis-py's defaults do not suit the path of a request: it retries a refused port for four seconds, waits a minute for a
server that hangs, and raises for the 101st concurrent command. A client made here retries nothing, lets commands wait
for a connection, and connects in a background task, so that the short deadline of a command never interrupts a slow
TLS handshake.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.options import stripped_text
from tokenmw.redis.background_connect import BACKGROUND_CONNECTIONS, BackgroundCluster, BackgroundConnection, abort
from tokenmw.redis.glide.adapter import GlideAdapter
from tokenmw.redis.glide.given import GlideClient, GlideClientConfiguration, glide_configuration
from tokenmw.redis.name_lookup import NameLookups
from tokenmw.redis.url import is_cluster, option_error, options_of, parameters_of, url_kwargs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AnyClient",
    "RedisOption",
    "abort_connecting",
    "address_of",
    "checked_redis",
    "close_client",
    "open_client",
    "open_connections",
    "plain_options",
    "refresh_slots",
    "renew_connection",
]

AnyClient: TypeAlias = "redis.Redis | redis.RedisCluster | GlideAdapter"
RedisOption: TypeAlias = "redis.Redis | redis.RedisCluster | GlideClient | GlideClientConfiguration"

_MAINTENANCE: Final = "maint_notifications_config"
_REFRESH_SECONDS: Final = 1.0


def checked_redis(given: object) -> str | RedisOption:
    """Return the `redis` option if it can work. Nothing is connected.

    Raises:
        ConfigurationError: It is neither a valid URL of a known scheme, nor a client of `redis.asyncio`, nor client or
            configuration of valkey-glide, or it is a client that decodes responses: sealed values are bytes.
    """
    if isinstance(given, str):
        stripped_text(given, option="redis: the URL")
        _check_url(given)
        return given
    if isinstance(given, (redis.Redis, redis.RedisCluster)):
        if _connection_kwargs(given).get("decode_responses"):
            raise ConfigurationError(
                "redis: the client has decode_responses=True, but values are bytes: create it without that option."
            )
        return given
    if (configuration := glide_configuration(given)) is not None:
        checked: GlideClientConfiguration = configuration
        return checked
    kind, module, hint = type(given).__name__, type(given).__module__, ""
    if module.startswith("redis.asyncio."):
        hint = " For a pool, pass redis.asyncio.Redis(connection_pool=pool); for a Sentinel, sentinel.master_for(name)."
    elif module.split(".")[0] == "redis":
        kind = f"the sync {kind}"
        hint = " A sync client would block the event loop: create it with redis.asyncio."
    raise ConfigurationError(
        f"redis must be a URL, a redis.asyncio.Redis, a redis.asyncio.RedisCluster or a glide.GlideClient, not {kind}."
        f"{hint}"
    )


def _connection_kwargs(client: redis.Redis | redis.RedisCluster) -> dict[str, Any]:
    if isinstance(client, redis.RedisCluster):
        return dict(client.connection_kwargs)
    return dict(client.connection_pool.connection_kwargs)


def _check_url(url: str) -> None:
    if not _can_open(url):
        # Raised outside of any `except`, so that an error that quotes the URL is not its context.
        classes = (redis.RedisCluster,) if is_cluster(url) else (Connection, SSLConnection, UnixDomainSocketConnection)
        for option in options_of(url):
            scheme = url.partition("://")[0]
            if not _can_open(f"{scheme}://{'/socket' if scheme == 'unix' else 'localhost'}?{option}"):
                known = parameters_of(*classes, BlockingConnectionPool)
                raise option_error(option.partition("=")[0], known=known)
        raise ConfigurationError(
            "redis: the URL has a host, a port or an option after the ? that is not valid. "
            "Write special characters in a password as %XX."
        )


def _can_open(url: str) -> bool:
    # Creating client and connection connects nothing, and raises for options that redis-py would refuse at first use.
    try:
        client, _ours = open_client(url, limits=Limits())
        if isinstance(client, redis.Redis):
            pool = client.connection_pool
            pool.connection_class(**pool.connection_kwargs)
    except ConfigurationError:
        raise
    except (TypeError, ValueError, OSError, RedisError, RedisClusterException):
        return False
    return True


def open_client(given: str | RedisOption, *, limits: Limits) -> tuple[AnyClient, bool]:
    """Return a client for this event loop, and whether it was created here and so has to be closed here.

    Nothing is connected yet.
    """
    if isinstance(given, (redis.Redis, redis.RedisCluster)):
        return given, False
    if not isinstance(given, str):
        return GlideAdapter(given, limits=limits), True
    kwargs: dict[str, Any] = {
        # The guard bounds commands, and the background task bounds the handshake. With a timeout of its own, redis-py
        # sends through asyncio.wait_for, which on Python 3.11 can lose a cancellation in the same turn of the loop.
        "socket_timeout": None,
        "socket_connect_timeout": limits.connect_seconds,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": limits.connections,
        "protocol": 3,
        **_no_maintenance(),
        **url_kwargs(given),
    }
    connection_class = kwargs.pop("connection_class", Connection)
    if is_cluster(given):
        kwargs.setdefault("host", "localhost")
        # redis-py asks them in random order, until one answers.
        kwargs["startup_nodes"] = [ClusterNode(host, port) for host, port in kwargs.pop("seeds", ())]
        kwargs["ssl"] = connection_class is SSLConnection
        return BackgroundCluster(lookup_seconds=limits.connect_seconds, **kwargs), True
    # The pool waits without a limit: the guard's deadline also covers the wait for a connection.
    if connection_class is not UnixDomainSocketConnection:
        kwargs["lookups"] = NameLookups()
    pool = BlockingConnectionPool(timeout=None, connection_class=BACKGROUND_CONNECTIONS[connection_class], **kwargs)
    return redis.Redis(connection_pool=pool), True


def plain_options() -> dict[str, Any]:
    """Return the options of a connection on which nothing arrives unasked but what it has subscribed to, in RESP2."""
    return {"protocol": 2, "socket_timeout": None, "health_check_interval": 0, **_no_maintenance()}


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
    if isinstance(client, GlideAdapter):
        return client.address
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


async def open_connections(client: AnyClient, count: int) -> None:
    """Have `count` connections of a client created here, in a cluster to each primary. Those that fail are left out."""
    if isinstance(client, BackgroundCluster):
        for node in client.get_primaries():
            with suppress(RedisError):  # it has as many as it may have
                connections: list[Any] = [node.acquire_connection() for _ in range(count)]
                await asyncio.gather(*(connection.connect() for connection in connections), return_exceptions=True)
                for connection in connections:
                    node.release(connection)
    elif isinstance(client, redis.Redis):
        pool: Any = client.connection_pool
        taken = await asyncio.gather(*(pool.get_connection() for _ in range(count)), return_exceptions=True)
        for connection in taken:
            if not isinstance(connection, BaseException):
                await pool.release(connection)


async def refresh_slots(client: AnyClient) -> None:
    """Ask a cluster again which node has which slot, for a second at most. Does nothing for a single server.

    A node that hangs raises no error on which redis-py would do so itself.
    """
    if isinstance(client, redis.RedisCluster):
        with suppress(RedisError, RedisClusterException, OSError):  # the next failed probe asks again
            async with asyncio.timeout(_REFRESH_SECONDS):
                await client.nodes_manager.initialize()


async def renew_connection(client: AnyClient) -> None:
    """Let a probe through valkey-glide make a connection of its own. Does nothing for redis-py.

    Glide keeps a connection whose commands have timed out, also if its peer has closed.
    """
    if isinstance(client, GlideAdapter):
        await client.renew()


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
