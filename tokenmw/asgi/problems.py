"""Errors as responses: RFC 9457 problem details for HTTP, a denial response or a close code for a WebSocket."""

from __future__ import annotations

import functools
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from tokenmw.errors import ConfigurationError, ReconnectRequired, RequestError
from tokenmw.redaction import without_locals
from tokenmw.startup.parts import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import HTTPConnection
    from starlette.types import Receive, Scope, Send

__all__ = ["AFTER_ACCEPT", "DENIAL", "add_problem_handlers", "close_code", "problem_response", "refuse"]

A = TypeVar("A")

AFTER_ACCEPT: Final = 1011  # internal error (RFC 6455 §7.4.1)
DENIAL: Final = "websocket.http.response"  # the ASGI extension for HTTP responses before `accept`
_REFUSED: Final = 1008  # policy violation
_TRY_LATER: Final = 1013


def problem_response(_connection: HTTPConnection, error: Exception) -> Response:
    """Return an error as `application/problem+json` (RFC 9457), with its status and headers.

    `type` is "about:blank" and `title` the standard phrase of the status. `detail` is the error's text for callers.
    A :class:`tokenmw.errors.ReconnectRequired` has a further member, `connect_url`.

    It is the default of `TokenMiddleware(on_error=…)`, and can be registered in Starlette and FastAPI as the exception
    handler for :class:`tokenmw.errors.RequestError`; :func:`add_problem_handlers` does more.

    Raises:
        Exception: The error itself, if it is not a `RequestError`.
    """
    if not isinstance(error, RequestError):
        raise error
    return Response(
        _document(error.status_code, error.detail, _connect_url_of(error)),
        status_code=error.status_code,
        headers=dict(error.headers or {}),
        media_type="application/problem+json",
    )


# Nearly all are one of a few fixed sentences, and a flood of refused requests gets the same one each time.
@functools.lru_cache(maxsize=16)
def _document(status: int, detail: str, connect_url: str) -> bytes:
    try:
        title = {"title": HTTPStatus(status).phrase}
    except ValueError:  # the status of a program's own class
        title = {}
    more = {"connect_url": connect_url} if connect_url else {}
    return json.dumps({"type": "about:blank", **title, "status": status, "detail": detail, **more}).encode()


def _connect_url_of(error: RequestError) -> str:
    return error.connect_url if isinstance(error, ReconnectRequired) else ""


def add_problem_handlers(app: A) -> A:
    """Make the routes of a Starlette or FastAPI application answer our errors as the middleware does. Return it.

        app = add_problem_handlers(FastAPI(lifespan=broker.lifespan))

    Without this, the framework answers an error that is raised in a route, in its own format. Applications that are
    already mounted in it are included, except those that have a handler of their own for
    :class:`tokenmw.errors.RequestError`. A WebSocket gets a denial response or a close code.

    Raises:
        ConfigurationError: It is not such an application, or it has started and would ignore further handlers.
    """
    handlers = _handlers_of(app)
    if handlers is None:
        raise ConfigurationError(
            f"add_problem_handlers takes a Starlette or FastAPI application, not {type(app).__name__}."
        )
    if getattr(app, "middleware_stack", None) is not None:
        raise ConfigurationError("Call add_problem_handlers before the application starts: it has copied its handlers.")
    handlers[RequestError] = _answer_problem
    for mounted in _mounted_in(app):
        mounted.setdefault(RequestError, _answer_problem)
    return app


def _handlers_of(app: object) -> dict[Any, Any] | None:
    handlers = cast("dict[Any, Any] | None", getattr(app, "exception_handlers", None))
    return handlers if isinstance(handlers, dict) else None


def _mounted_in(app: object) -> Iterator[dict[Any, Any]]:
    """Yield the exception handlers of the applications that are mounted in another one, at any depth."""
    for part in parts_of(app):
        handlers = None if part is app else _handlers_of(part)
        if handlers is not None:
            yield handlers


async def _answer_problem(connection: HTTPConnection, error: Exception) -> Response | None:
    # A coroutine function: the framework would run any other handler in a worker thread.
    response = problem_response(connection, error)
    if not isinstance(connection, WebSocket):
        return response
    if connection.application_state is WebSocketState.CONNECTING:
        if DENIAL in connection.scope.get("extensions", {}):
            return response
        await connection.close(close_code(response.status_code))
    elif connection.application_state is WebSocketState.CONNECTED:
        await connection.close(AFTER_ACCEPT)
    return None


def close_code(status: int) -> int:
    """Return the WebSocket close code that corresponds to an HTTP status before `accept`."""
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return AFTER_ACCEPT
    return _REFUSED if 400 <= status < 500 else _TRY_LATER


@without_locals
async def refuse(response: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response instead of calling the application.

    A WebSocket sends it as a denial response if the server has the extension, else as a close code.
    """
    if scope["type"] == "websocket" and DENIAL not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": close_code(response.status_code), "reason": ""})
        return
    await response(scope, receive, send)
