"""What the program's `authenticate` may be, and what its answers mean: a caller, a refusal, or neither.

A caller is an object that is true. Python takes every object for true unless its class says otherwise, so a mistake
would let every key in: a generator, a coroutine without `await`, a cursor without rows. Those are neither, and let
nobody in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from starlette.exceptions import HTTPException
from starlette.responses import Response

from tokenmw.errors import APIKeyRefused, ConfigurationError
from tokenmw.options import checked_callback

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UndecidedAnswer", "checked_authenticate", "is_caller", "refusal", "refusal_by"]

_LOOKUPS: Final = frozenset({"get", "pop", "setdefault"})  # of a mapping, each with (key, default)
_NOT_ACCEPTED: Final = "The API key is not accepted."
_UNDECIDED: Final[tuple[tuple[Callable[[object], bool], str], ...]] = (
    (lambda answer: type(answer) is tuple, "is true whatever is in it: return a named tuple, a dict or an object"),
    (lambda answer: isinstance(answer, Awaitable), "is true before it is awaited: an `await` is missing"),
    (
        lambda answer: isinstance(answer, (Iterator, AsyncIterator)),
        "is true even if it has no items: return the first one, or None",
    ),
    (
        lambda answer: isinstance(answer, (AbstractContextManager, AbstractAsyncContextManager)),
        "is true before it is entered: enter it in authenticate, and return what it gives",
    ),
    (lambda answer: isinstance(answer, type) or inspect.isroutine(answer), "is true before it is called: call it"),
    (lambda answer: isinstance(answer, BaseException), "is an exception: raise it"),
    (lambda answer: isinstance(answer, Response), "is true whatever its status is: raise APIKeyRefused instead"),
)


class UndecidedAnswer(Exception):
    """Raised for an answer that is neither a caller nor a refusal; its text says why, for the log."""


def checked_authenticate(authenticate: object) -> None:
    """Raise unless `authenticate` takes a connection and a key, and returns its answer instead of yielding it.

    Builtin functions without a signature are accepted; builtin classes, and the lookups of mappings, are not.
    """
    checked_callback(authenticate, option="authenticate", takes="(connection, key) -> object | None")
    seen: list[object] = []
    function: object = authenticate
    while function is not None and not any(function is one for one in seen):
        _check_builtin(function)
        if inspect.iscoroutinefunction(function):
            return  # whatever it wraps, it returns what it has awaited
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                "authenticate must return the caller. This one is a generator function, or a context manager made from "
                "one, and its result is true for every key: write `return` in place of `yield`."
            )
        seen.append(function)
        function = _wrapped(function)


def _check_builtin(function: object) -> None:
    """Raise for what is written in C, so that its signature shows nothing, and can take no caller for a key."""
    if isinstance(function, type) and not _has_signature(function):
        raise ConfigurationError(
            f"authenticate was given the class {function.__name__}, which does not take (connection, key): pass a "
            "function that returns the caller of a key."
        )
    name, owner = getattr(function, "__name__", ""), getattr(function, "__self__", None)
    if isinstance(owner, Mapping) and name in _LOOKUPS:
        kind = type(cast("object", owner)).__name__
        raise ConfigurationError(
            f"authenticate is the method {name} of a {kind}, which would return every key that is not in it: it takes "
            "the connection for the key, and the key for the default. Write `lambda connection, key: callers.get(key)`."
        )


def _has_signature(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function)
    except (TypeError, ValueError):
        return False
    return True


def _wrapped(function: object) -> object | None:
    """Return the function that a callable calls, as far as its attributes show it."""
    if isinstance(function, functools.partial):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    wrapped: object = getattr(function, "__wrapped__", None)  # set by functools.wraps
    if wrapped is not None:
        return wrapped
    if inspect.isroutine(function) or isinstance(function, type):
        return None
    return type(function).__call__


def is_caller(answer: object) -> bool:
    """Return whether an answer of `authenticate` is the caller; a falsy one refuses the key.

    Raises:
        UndecidedAnswer: It is neither.
    """
    described = f"a value of type {type(answer).__name__}"
    try:
        if not answer:
            return False
    except Exception as error:  # noqa: BLE001  whatever the program's class raises
        raise UndecidedAnswer(f"{described}, which has no truth value: it raises {type(error).__name__}") from None
    for applies, fix in _UNDECIDED:
        if applies(answer):
            if inspect.iscoroutine(answer):
                answer.close()  # else Python warns, with a line of the event loop, that it was never awaited
            raise UndecidedAnswer(f"{described}, which {fix}")
    return True


def refusal() -> APIKeyRefused:
    """Return the error for a key that `authenticate` refuses without a text of its own."""
    return APIKeyRefused(_NOT_ACCEPTED)


def refusal_by(error: BaseException) -> APIKeyRefused | None:
    """Return the refusal that an exception of `authenticate` means; None if it means that the key cannot be checked.

    It is an `APIKeyRefused`, or an `HTTPException` with 401 or 403, as a FastAPI dependency raises it. Both are a 401:
    FastAPI's own schemes have responded with 403 to a missing key, and two statuses would show which keys exist.
    """
    if isinstance(error, APIKeyRefused):
        return error
    if not isinstance(error, HTTPException) or error.status_code not in (401, 403):
        return None
    detail: object = error.detail
    if not isinstance(detail, str) or detail in ("", HTTPStatus(error.status_code).phrase):
        detail = _NOT_ACCEPTED
    challenges = [value for name, value in (error.headers or {}).items() if name.lower() == "www-authenticate"]
    return APIKeyRefused(detail, challenge=challenges[0]) if challenges else APIKeyRefused(detail)
