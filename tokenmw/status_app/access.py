"""Asks the program's callables which requests see the status, and which may act. It fails closed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from tokenmw.callers.answers import UndecidedAnswer, is_caller
from tokenmw.errors import ConfigurationError
from tokenmw.observe.error_place import with_place
from tokenmw.options import checked_callback
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["Allow", "Gate", "is_true"]

Allow = Callable[[HTTPConnection], object | Awaitable[object]]
"""The program's callable: a true value allows the request, a falsy one refuses it."""

_REFUSALS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Gate(Unpicklable):
    """One callable of the program that allows or refuses requests.

    Args:
        allow: The callable.
        option: The option's name, for errors and log lines.
        log: Gets a line if the callable does not decide.
        seconds: How long it may take.

    Raises:
        ConfigurationError: It cannot be called with a connection, or is a generator.
    """

    __slots__ = ("_allow", "_log", "_option", "_seconds")

    def __init__(self, allow: Allow, *, option: str, log: ThrottledLog, seconds: float) -> None:
        name = f"StatusApp({option}=…)"
        checked_callback(allow, option=name, takes="(connection) -> object")
        if isinstance(allow, type) or inspect.isgeneratorfunction(allow) or inspect.isasyncgenfunction(allow):
            raise ConfigurationError(f"{name} is a class or a generator, whose result is always true: use a function.")
        self._allow = allow
        self._option = option
        self._log = log
        self._seconds = seconds

    async def refusal(self, connection: HTTPConnection) -> Response | None:
        """Return the response to a request that is not allowed: 401, 403, or 503 without a decision; else None."""
        try:
            if await is_true(self._allow, connection, seconds=self._seconds):
                return None
            return PlainTextResponse("Not allowed.", HTTPStatus.FORBIDDEN)
        except UndecidedAnswer as undecided:
            self._log.problem("status", "StatusApp(%s=…) returned %s; it gets 503", self._option, str(undecided))
        except Exception as error:  # noqa: BLE001  whatever the program raises refuses the request
            if isinstance(error, HTTPException) and error.status_code in _REFUSALS:
                # With its headers, such as the challenge for a password that a browser then asks for.
                return PlainTextResponse("Not allowed.", error.status_code, headers=dict(error.headers or {}))
            place = with_place(error, called=self._allow)
            self._log.problem("status", "StatusApp(%s=…) raised %s; it gets 503", self._option, place)
        return PlainTextResponse("Not decided.", HTTPStatus.SERVICE_UNAVAILABLE)


async def is_true(function: Callable[..., object], *args: object, seconds: float) -> bool:
    """Return whether a callable of the program, sync or async, returns a true value.

    Raises:
        UndecidedAnswer: Its value is true whatever was meant, such as a generator.
        TimeoutError: It has taken longer than `seconds`.
    """
    async with asyncio.timeout(seconds):
        answer = function(*args)
        if inspect.isawaitable(answer):
            answer = await answer
    return is_caller(answer)
