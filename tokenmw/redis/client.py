"""The Redis client: made from a URL with a pool of our own, or the user's.

redis-py's own defaults are made for scripts, not for a request's path: four seconds for a refused port, a minute for
a server that hangs, an error for the 101st command at once. Here nothing is retried, the pool waits, and a connection
is made in a task of its own, so that a command's short deadline never cuts a slow TLS handshake in the middle.
"""

from __future__ import annotations

import re
from contextlib import suppress
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

import redis.asyncio as redis
from redis import __version__ as redis_version
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.redis.background_connect import BACKGROUND_CONNECTIONS, BackgroundCluster, BackgroundConnection, abort

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AnyClient", "checked_redis", "close_client", "drop_dials", "open_client"]

AnyClient: TypeAlias = "redis.Redis | redis.RedisCluster"

_SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
_CLUSTER_SINCE: Final = (8, 0, 1)  # the first redis-py whose nodes give back the connection of a command that gave up
_MAINTENANCE: Final = "maint_notifications_config"


def checked_redis(given: object) -> str | AnyClient:
    """Return the `redis` option if it can work, whatever server is behind it.

    Raises:
        ConfigurationError: It is neither a URL of a known scheme nor a client of `redis.asyncio`, or it is a client
            that decodes responses: sealed values are bytes.
    """
    if isinstance(given, str):
        _try_out(given)
        return given
    if isinstance(given, (redis.Redis, redis.RedisCluster)):
        if _connection_kwargs(given).get("decode_responses"):
            raise ConfigurationError(
                "redis: the client has decode_responses=True, but values are bytes: make one without."
            )
        return given
    hint, module = "", type(given).__module__
    if module.startswith("redis.asyncio."):
        hint = " Of a pool make redis.asyncio.Redis(connection_pool=pool), of a Sentinel sentinel.master_for(name)."
    elif module.split(".")[0] == "redis":
        hint = " A sync client would block the event loop: make it with redis.asyncio."
    raise ConfigurationError(
        f"redis must be a URL, a redis.asyncio.Redis or a redis.asyncio.RedisCluster, not {type(given).__name__}.{hint}"
    )


def _connection_kwargs(client: AnyClient) -> dict[str, Any]:
    if isinstance(client, redis.RedisCluster):
        return dict(client.connection_kwargs)
    return dict(client.connection_pool.connection_kwargs)


def _try_out(url: str) -> None:
    # Making the objects connects nothing, and finds the options that redis-py would refuse at the first command.
    try:
        client, _ours = open_client(url, limits=Limits())
        if isinstance(client, redis.Redis):
            pool = client.connection_pool
            pool.connection_class(**pool.connection_kwargs)
    except ConfigurationError:
        raise
    except (TypeError, ValueError, OSError, RedisError, RedisClusterException) as error:
        # Not even an option's name goes into the text: behind an unquoted "?" it is a piece of the password.
        kind = type(error).__name__
    else:
        return
    # Out here, so that no error that quotes the URL stands behind this one.
    raise ConfigurationError(
        f"redis: the URL has a host, a port or an option after the ? that cannot work ({kind}). "
        "Write special characters in a password as %XX."
    )


def _url_kwargs(url: str) -> dict[str, Any]:
    # The text of a URL never goes into an error: it holds the password.
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ConfigurationError(f"redis: the URL must begin with one of {known}.")
    read = _read(url, as_one=scheme.removesuffix("+cluster") + separator + rest)
    if read is None:
        raise ConfigurationError(
            "redis: the URL cannot be read: its host, its port or an option after the ? cannot work. "
            "Write special characters in a password as %XX."
        )
    parts, port, kwargs = read
    if port == 0 or (scheme != "unix" and parts.netloc.endswith(":")):
        # As from a variable that is not set; redis-py would take its default.
        raise ConfigurationError("redis: the URL has a colon without a port from 1 to 65535: leave it out for 6379.")
    database = parts.path.strip("/")
    if scheme != "unix" and database and not database.isdecimal():
        raise ConfigurationError("redis: the URL's path must be a database number, such as redis://host:6379/0.")
    if scheme == "unix" and not parts.path:
        raise ConfigurationError("redis: a unix:// URL needs the socket's path, such as unix:///run/redis.sock?db=0.")
    if "cluster" in scheme and kwargs.get("db"):
        raise ConfigurationError("redis: a cluster has the database 0 only: leave the number out of the URL.")
    if kwargs.get("decode_responses"):
        raise ConfigurationError("redis: decode_responses cannot be used: values are bytes.")
    if "cluster" in scheme and tuple(map(int, re.findall(r"\d+", redis_version)[:3])) < _CLUSTER_SINCE:
        needed = ".".join(map(str, _CLUSTER_SINCE))
        raise ConfigurationError(
            f"redis: with redis-py {redis_version} a cluster's node that hung once would never be used again: "
            f'`pip install "redis>={needed}"`.'
        )
    return kwargs


def _read(url: str, *, as_one: str) -> tuple[SplitResult, int | None, dict[str, Any]] | None:
    # None instead of an error, whose text would quote a part of the URL.
    try:
        parts = urlsplit(url)
        return parts, parts.port, dict(parse_url(as_one))  # the port is checked only when it is looked at
    except ValueError:
        return None


def open_client(given: str | AnyClient, *, limits: Limits) -> tuple[AnyClient, bool]:
    """Return a client for this event loop, and whether it is ours to close. Nothing is connected yet."""
    if not isinstance(given, str):
        return given, False
    kwargs: dict[str, Any] = {
        # Commands have the guard's deadline and the handshake has the dialling's. With one of its own, redis-py sends
        # through asyncio.wait_for, which on Python 3.11 can lose a cancellation that comes in the same turn.
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
        return BackgroundCluster(opening_seconds=limits.connect_seconds, **kwargs), True
    # The pool itself never gives up: the guard's deadline covers waiting for a connection, too.
    pool = BlockingConnectionPool(timeout=None, connection_class=BACKGROUND_CONNECTIONS[connection_class], **kwargs)
    return redis.Redis(connection_pool=pool), True


def _no_maintenance() -> dict[str, Any]:
    # A feature of one vendor's server, on by default since redis-py 8.1; with it, pools skip a check for stale data.
    # The module came with 7.0, for redis-py's sync clients only.
    if _MAINTENANCE not in signature(cast("Callable[..., Any]", AbstractConnection.__init__)).parameters:
        return {}
    from redis.maint_notifications import MaintNotificationsConfig

    return {_MAINTENANCE: MaintNotificationsConfig(enabled=False)}


async def drop_dials(client: AnyClient, *, before: float) -> None:
    """End the diallings of a client that we made, if they were begun before a time of the event loop's.

    What was dialled while the server was away may hang on for as long as connecting may take: its packets are lost. The
    pool would give it to some command all the same, which fails although the server is back.
    """
    if isinstance(client, redis.Redis) and issubclass(client.connection_pool.connection_class, BackgroundConnection):
        await abort(
            connection
            for connection in _connections(client)
            if isinstance(connection, BackgroundConnection) and connection.dialling_before(before)
        )


async def close_client(client: AnyClient) -> None:
    """Close a client that we made at once, even one that is dialling into a black hole."""
    if isinstance(client, BackgroundCluster):
        await client.abort()
    elif isinstance(client, redis.Redis):
        await abort(_connections(client))
    with suppress(RedisError, OSError):  # it is going away; that the server has gone first changes nothing
        await client.aclose()


def _connections(client: redis.Redis) -> list[object]:
    # redis-py offers no public way to the connections that are being made.
    pool = client.connection_pool
    return [*pool._available_connections, *pool._in_use_connections]
