"""Errors as responses: RFC 9457 problem details for HTTP, a denial response or a close code for a WebSocket."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import Receive, Scope, Send

    from tokenmw.errors import RequestError

__all__ = ["AFTER_ACCEPT", "DENIAL", "close_code", "problem_response", "refuse"]

AFTER_ACCEPT: Final = 1011  # internal error (RFC 6455 §7.4.1)
DENIAL: Final = "websocket.http.response"  # the ASGI extension for HTTP responses before `accept`
_REFUSED: Final = 1008  # policy violation
_TRY_LATER: Final = 1013


def problem_response(_connection: HTTPConnection, error: RequestError) -> Response:
    """Return an error as `application/problem+json` (RFC 9457), with its status and headers.

    `type` is "about:blank" and `title` the standard phrase of the status. `detail` says what happened, without secrets.
    """
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.detail,
    }
    return Response(
        json.dumps(problem),
        status_code=error.status_code,
        headers=dict(error.headers or {}),
        media_type="application/problem+json",
    )


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
