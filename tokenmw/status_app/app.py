"""The ASGI application that shows a broker's status, and serves the probes of an orchestrator."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tokenmw.broker import TokenBroker
from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_flag, checked_instance, positive_seconds
from tokenmw.redaction import Unpicklable, without_locals
from tokenmw.status_app.access import Allow, Gate
from tokenmw.status_app.readiness import Readiness, Ready
from tokenmw.status_app.report import Reporter, loop_lag

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

__all__ = ["StatusApp"]

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_OPEN: Final = frozenset({"/livez", "/readyz"})  # they say "ok" or not, and nothing of the broker
_WHO: Final = (
    "StatusApp needs allow=…, a function of the connection that says who may see the status; or allow_all=True, if "
    "something in front of it decides."
)


class StatusApp(Unpicklable):
    """Shows the status of a broker in this process; to be mounted in the program's application.

        app.mount("/_tokenmw", StatusApp(broker, allow=is_operator))

    - `GET /livez` is 200 unless the event loop is late by more than `max_lag`; `GET /readyz` is 200 once this process
      had the tokens that it needs, and never 503 because of Redis. Both are open to all: they say nothing else.
    - `GET /status.json` is the status as JSON.

    None of it has a secret, an API key, a session id, or the name of a tenant or user.

    Args:
        broker: The broker.
        allow: Which requests see the status: `(connection) -> object`, sync or async. A falsy value is a 403, as is
            `HTTPException(401)` with its headers or `HTTPException(403)`. Any other exception, or a value that is true
            whatever was meant, such as a generator, is a 503 and a log line.
        allow_all: True in place of `allow`: everyone who reaches the application sees the status.
        ready: The names of the providers whose tokens this process needs, or a policy `(status) -> bool`, sync or
            async, that decides alone. Default: all names whose credentials do not depend on the request.
        max_lag: Seconds by which the event loop may be late for `/livez`.

    Raises:
        ConfigurationError: Neither `allow` nor `allow_all` is given, or an option cannot work.
    """

    __slots__ = ("_gate", "_max_lag", "_readiness", "_reporter")

    @without_locals
    def __init__(
        self,
        broker: TokenBroker,
        *,
        allow: Allow | None = None,
        allow_all: bool = False,
        ready: Ready = None,
        max_lag: float = 1.0,
    ) -> None:
        checked_instance(broker, TokenBroker, option="StatusApp(broker)", example="TokenBroker(…)")
        checked_flag(allow_all, option="StatusApp(allow_all=…)")
        if (allow is None) is not allow_all:
            raise ConfigurationError(_WHO)
        log, seconds = broker._settings.log, broker._settings.limits.wait_seconds
        self._gate = None if allow is None else Gate(allow, option="allow", log=log, seconds=seconds)
        self._readiness = Readiness(broker, ready, seconds=seconds)
        self._reporter = Reporter(broker)
        self._max_lag = positive_seconds(max_lag, option="StatusApp(max_lag=…)")

    @without_locals
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        request = Request(scope, receive)
        response = await self._respond(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = _path_below(request.scope)
        if path not in _OPEN and self._gate is not None:
            refusal = await self._gate.refusal(request)
            if refusal is not None:
                return refusal
        handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status.json": self._status,
        }
        handle = handlers.get(path)
        if handle is None:
            return PlainTextResponse("Not found.", HTTPStatus.NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("Only GET.", HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        return await handle(request)

    async def _livez(self, _request: Request) -> Response:
        return _probe(await loop_lag() <= self._max_lag)

    async def _readyz(self, _request: Request) -> Response:
        return _probe(await self._readiness.is_ready())

    async def _status(self, _request: Request) -> Response:
        return JSONResponse({**self._reporter.report(), "loop_lag": await loop_lag()})

    def __repr__(self) -> str:
        return "<StatusApp>"


def _probe(good: bool) -> Response:  # noqa: FBT001  the only argument
    return PlainTextResponse("ok") if good else PlainTextResponse("not ok", HTTPStatus.SERVICE_UNAVAILABLE)


def _path_below(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path[len(root) :] if path == root or path.startswith(f"{root}/") else path
    return below or "/"
