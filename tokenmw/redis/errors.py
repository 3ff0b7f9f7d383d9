"""The reason of a failed Redis command: a short word for logs, events and the status, such as `timeout` or `full`."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["UNKNOWN", "RedisUnavailable", "Unsuitable", "classify"]

_BEGINNING: Final = 200  # characters of an error reply that are searched for a code
# The first that matches counts: some of redis-py's classes are subclasses of others.
_REASON_OF_CLASS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (MaxConnectionsError, "busy"),
    (BusyLoadingError, "loading"),
    (AuthenticationError, "auth"),
    (RedisTimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (RedisConnectionError, "connection"),
    (OSError, "connection"),
    (OutOfMemoryError, "full"),
    (ReadOnlyError, "readonly"),
    (NoPermissionError, "permission"),
    (ClusterDownError, "cluster"),
    (AskError, "cluster"),  # MOVED as well: the client of a single server was given a node of a cluster
    (ResponseError, "response"),
    (RedisError, "error"),
    (RedisClusterException, "cluster"),
)
# Any other exception: asyncio's RuntimeError for a client of another event loop, what the user's own code inside of a
# client raises (credentials, address_remap), and bugs of this package. It is an outage with a log line of its own.
UNKNOWN: Final = "client"
_REASON_OF_CODE: Final = {
    "OOM": "full",
    "READONLY": "readonly",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "MISCONF": "disk",
    "NOPERM": "permission",
    "NOREPLICAS": "replicas",
    "CLUSTERDOWN": "cluster",
    "BUSY": "script",
    # "DB index is out of range", "SELECT is not allowed in cluster mode": the handshake fails, so every command does.
    "DB": "database",
    "SELECT": "database",
}
# Redis before 7 quotes the error of a command inside of a script in the middle of another text.
_IN_SCRIPT: Final = re.compile(r"Error running script .*? -?([A-Z]+) ")
# What redis-py raises when the pool of a user's client has no free connection.
_NO_CONNECTION: Final = ("No connection available.", "Too many connections")
# How Redis and Valkey report a command of a script that the ACL forbids; it has no error code.
_NO_PERMISSION: Final = ("The user executing the script", "ACL failure in script")
# From an old server, one with renamed commands, or a proxy; in a script, and outside of one.
_UNKNOWN_COMMAND: Final = re.compile(r"unknown command|Unknown Redis command|NOPROTO", re.IGNORECASE)


class RedisUnavailable(Exception):
    """Raised when Redis cannot serve one operation now.

    Attributes:
        reason: A short word without secrets: `timeout`, `connection`, `full`, `readonly`, `open` (the circuit), ….
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unsuitable(Exception):
    """Raised when a server answers, but cannot be used as it is.

    Attributes:
        reason: `unsupported` or `permission`.
        fix: What is wrong, and how to fix it.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


def classify(error: Exception) -> str:
    """Return the reason of a failed command; `UNKNOWN` if it is no fault of Redis or of the network."""
    if isinstance(error, Unsuitable):
        return error.reason
    # The text of another class is not read: its __str__ is somebody else's code, which may raise.
    text = str(error) if isinstance(error, RedisError) else ""
    if type(error) is RedisConnectionError and text in _NO_CONNECTION:
        return "busy"
    if type(error) is ResponseError and text.startswith(_NO_PERMISSION):
        return "permission"
    if type(error) is ResponseError and _UNKNOWN_COMMAND.search(text[:_BEGINNING]):
        return "unsupported"
    if type(error) is ResponseError or isinstance(error, RedisConnectionError):
        inner = _IN_SCRIPT.search(text)
        code = inner[1] if inner else text.partition(" ")[0]
        if code in _REASON_OF_CODE:
            return _REASON_OF_CODE[code]
    return next((reason for kind, reason in _REASON_OF_CLASS if isinstance(error, kind)), UNKNOWN)
