"""What went wrong with Redis, as one word that an operator knows: `timeout`, `full`, `readonly`."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import (
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

__all__ = ["UNKNOWN", "RedisUnavailable", "classify"]

# In the order in which they are tried: redis-py's classes are each other's subclasses in places.
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
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
    (ResponseError, "response"),
    (RedisError, "error"),
    (RedisClusterException, "cluster"),
)
# What is none of these: asyncio's RuntimeError for a client of another event loop, what a program's own credentials or
# address_remap raise inside of its client, and slips of this package. Requests go on without Redis, and the log tells.
UNKNOWN: Final = "client"
_SERVER_WORDS: Final = {
    "OOM": "full",
    "READONLY": "readonly",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "MISCONF": "disk",
    "NOPERM": "permission",
    "NOREPLICAS": "replicas",
    "CLUSTERDOWN": "cluster",
    "BUSY": "script",
    # "DB index is out of range", "SELECT is not allowed in cluster mode": of the handshake, so it is every command's.
    "DB": "database",
    "SELECT": "database",
}
# Redis before 7 puts the error of a command inside of a script into the middle of a text of its own.
_IN_SCRIPT: Final = re.compile(r"Error running script .*? -?([A-Z]+) ")
# redis-py's words for it when a pool of the user's gives up.
_NO_CONNECTION: Final = ("No connection available.", "Too many connections")
# What an ACL says of a script's command, in Redis and in Valkey; there is no code of its own for it.
_NO_PERMISSION: Final = ("The user executing the script", "ACL failure in script")


class RedisUnavailable(Exception):
    """Raised when the shared layer cannot serve one operation now.

    Attributes:
        word: Why, a short word without secrets: `timeout`, `connection`, `full`, `readonly`, `open`, ….
    """

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def classify(error: Exception) -> str:
    """Return the reason of a failed command as one word; `UNKNOWN` for what is no fault of Redis."""
    # A class that nobody knows is not asked for its text, which may raise.
    text = str(error) if isinstance(error, RedisError) else ""
    if type(error) is RedisConnectionError and text in _NO_CONNECTION:
        return "busy"
    if type(error) is ResponseError and text.startswith(_NO_PERMISSION):
        return "permission"
    if type(error) is ResponseError or isinstance(error, RedisConnectionError):
        inner = _IN_SCRIPT.search(text)
        code = inner[1] if inner else text.partition(" ")[0]
        if code in _SERVER_WORDS:
            return _SERVER_WORDS[code]
    return next((word for kind, word in _WORDS if isinstance(error, kind)), UNKNOWN)
