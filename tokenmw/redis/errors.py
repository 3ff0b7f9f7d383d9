"""The reason of a failed Redis command: a short word for logs, events and the status, such as `timeout` or `full`."""

from __future__ import annotations

import errno
import re
import ssl
from asyncio import IncompleteReadError
from socket import gaierror
from typing import TYPE_CHECKING, Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
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

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UNKNOWN", "RedisUnavailable", "Unsuitable", "WrongReply", "behind_retries", "causes", "classify"]

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


# How redis-py and this package report that the server closed a connection; there is no error of the system then.
_CLOSED: Final = ("Connection closed by server", "The connection was lost")
# What event loops raise for a write to a connection that was reset before: uvloop, and asyncio in Python 3.12 and 3.13.
_CLOSED_IN_LOOP: Final[dict[type[BaseException], str]] = {
    RuntimeError: "unable to perform operation on <",
    AttributeError: "'NoneType' object has no attribute '_add_writer'",
}
# asyncio's error if a host name has several addresses and none could be connected to.
_SEVERAL: Final = "Multiple exceptions: "
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_MAX_CAUSES: Final = 5


class RedisUnavailable(Exception):
    """Raised when Redis cannot serve one operation now.

    Attributes:
        reason: A short word without secrets: `timeout`, `refused`, `full`, `readonly`, `open` (the circuit), ….
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


class WrongReply(InvalidResponse):
    """Raised when a reply is not that of its command."""

    def __init__(self) -> None:
        super().__init__("A reply is not that of its command.")


def classify(error: BaseException) -> str:
    """Return the reason of a failed command; `UNKNOWN` if it is no fault of Redis or of the network."""
    if isinstance(error, Unsuitable):
        return error.reason
    # The text of another class is not read: its __str__ is somebody else's code, which may raise.
    text = str(error) if isinstance(error, RedisError) else ""
    if type(error) is RedisConnectionError and text in _NO_CONNECTION:
        return "busy"
    if type(error) is ResponseError and (reason := _of_reply(text)):
        return reason
    if type(error) is ResponseError or isinstance(error, RedisConnectionError):
        inner = _IN_SCRIPT.search(text)
        code = inner[1] if inner else text.partition(" ")[0]
        if code in _REASON_OF_CODE:
            return _REASON_OF_CODE[code]
    reason = next((reason for kind, reason in _REASON_OF_CLASS if isinstance(error, kind)), UNKNOWN)
    if reason == UNKNOWN and _first_words(error).startswith(_CLOSED_IN_LOOP.get(type(error), "\0")):
        return "reset"
    return _of_connection(error) if reason == "connection" else reason


def behind_retries(error: BaseException, *, outer: BaseException | None) -> BaseException:
    """Return the error after which a client waited to try again when its deadline expired; else the error itself.

    Such a client, with retries of its own, would seem to time out whatever is wrong.

    Args:
        error: What the command raised.
        outer: What the caller was handling when the command began; it is the context of each error since.
    """
    if isinstance(error, TimeoutError):
        for cause in causes(error):
            if cause is outer:
                break
            if isinstance(cause, RedisError):
                return cause
    return error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from or while handling, at most five."""
    for _ in range(_MAX_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _of_reply(text: str) -> str:
    if text.startswith(_NO_PERMISSION):
        return "permission"
    if _UNKNOWN_COMMAND.search(text[:_BEGINNING]):
        return "unsupported"
    return ""


def _of_connection(error: BaseException) -> str:
    if str(error).startswith(_CLOSED):
        return "reset"
    for cause in causes(error):
        numbers = _error_numbers(cause)
        if isinstance(cause, ssl.SSLError):
            break
        if isinstance(cause, gaierror):
            return "dns"
        if numbers & {errno.EMFILE, errno.ENFILE}:
            return "nofile"
        if numbers == {errno.ECONNREFUSED} or isinstance(cause, ConnectionRefusedError):
            return "refused"
        if isinstance(cause, (ConnectionError, IncompleteReadError)):
            return "reset"
    return "connection"


def _error_numbers(error: BaseException) -> set[int | None]:
    if not isinstance(error, OSError):
        return set()
    text = _first_words(error)
    return {*map(int, _ERRNO.findall(text))} if text.startswith(_SEVERAL) else {error.errno}


def _first_words(error: BaseException) -> str:
    return error.args[0] if error.args and isinstance(error.args[0], str) else ""
