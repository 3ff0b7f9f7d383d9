"""Turns the errors of valkey-glide into those of redis-py, so that one table classifies both.

Glide has one class for all error replies, and its own names for some codes of Redis in their texts:

    OOM: command not allowed when used memory > 'maxmemory'.
    An error was signalled by the server: - ReadOnly: You can't write against a read only replica.
    Standalone connect failed - IoError: Received error for address `10.0.0.5:6379`: WRONGPASS: invalid …

While it has no connection it makes one in the background, and commands time out, whatever is wrong.
"""

from __future__ import annotations

import re
from typing import Any, Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenmw.redis.errors import Unsuitable

__all__ = ["redis_error"]

_SIGNALLED: Final = "An error was signalled by the server: - "
_CONNECTING: Final = re.compile(r"Received error for address `[^`]*`: (.*)", re.DOTALL)
_CODED: Final = re.compile(r"([A-Za-z]{2,20}): (.*)", re.DOTALL)
_NOT_CONNECTED: Final = "Standalone connect failed"
_NO_PRIMARY: Final = "No primary node found"  # all addresses are replicas
_BUSY: Final = "Reached maximum inflight requests"
_CODE_OF_KIND: Final = {
    "BusyLoadingError": "LOADING",
    "NoScriptError": "NOSCRIPT",
    "Moved": "MOVED",
    "Ask": "MOVED",
    "TryAgain": "TRYAGAIN",
    "ClusterDown": "CLUSTERDOWN",
    "CrossSlot": "CROSSSLOT",
    "MasterDown": "MASTERDOWN",
    "ReadOnly": "READONLY",
    "PermissionDenied": "NOPERM",
}
_ERR: Final = "ResponseError"  # Glide's name of the code ERR, which redis-py omits
_CLASS_OF_CODE: Final[dict[str, type[ResponseError | RedisConnectionError]]] = {
    "LOADING": BusyLoadingError,
    "NOSCRIPT": NoScriptError,
    "CLUSTERDOWN": ClusterDownError,
    "CROSSSLOT": ClusterCrossSlotError,
    "READONLY": ReadOnlyError,
    "NOPERM": NoPermissionError,
    "OOM": OutOfMemoryError,
    "NOAUTH": AuthenticationError,
    "WRONGPASS": AuthenticationError,
}
_NO_PASSWORD: Final = "without any password"  # of the server; its reply has the code ERR
_REFUSED: Final = (
    "valkey-glide refuses the configuration: `await GlideClient.create(configuration)` in a program of its own says why"
)


def redis_error(error: Exception) -> Exception:
    """Return the error of redis-py that says the same as one of valkey-glide; any other error is returned as it is."""
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "glide_shared.exceptions"}
    if "TimeoutError" in names:
        return RedisTimeoutError("Timeout reading from server")
    if "ClosingError" in names:  # a probe has replaced the client; the command had no reply by then
        return RedisTimeoutError("Timeout reading from server")
    if "ConnectionError" in names:
        return RedisConnectionError("The connection was lost.")
    if "ConfigurationError" in names:
        return Unsuitable("error", _REFUSED)
    if "RequestError" in names:
        return _of_request(str(error))
    return RedisError("valkey-glide failed.") if names else error


def _of_request(text: str) -> Exception:
    if _BUSY in text:
        return MaxConnectionsError("Too many connections")
    if text.startswith(_NOT_CONNECTED):
        connecting = _CONNECTING.search(text)
        return _of_connecting(connecting[1].strip() if connecting else text)
    return _of_reply(text.removeprefix(_SIGNALLED))


def _of_connecting(text: str) -> Exception:
    if text == "timed out":
        return RedisTimeoutError("Timeout connecting to server")
    if _CODED.fullmatch(text.removeprefix(_SIGNALLED)):
        return _of_reply(text.removeprefix(_SIGNALLED))
    return ReadOnlyError(_NO_PRIMARY) if _NO_PRIMARY in text else RedisConnectionError("Connection failed.")


def _of_reply(text: str) -> Exception:
    coded = _CODED.fullmatch(text)
    if coded is None:
        return ResponseError(text)
    kind, detail = coded[1], coded[2]
    if kind == _ERR:
        return AuthenticationError(detail) if _NO_PASSWORD in detail else ResponseError(detail)
    code = _CODE_OF_KIND.get(kind, kind)
    if code == "MOVED":
        made: Any = MovedError  # it reads a slot and an address from its text
        moved: Exception = made("0 -:0")
        return moved
    return _CLASS_OF_CODE[code](detail) if code in _CLASS_OF_CODE else ResponseError(f"{code} {detail}")
