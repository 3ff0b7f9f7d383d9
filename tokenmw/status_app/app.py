"""The ASGI application that shows a broker's status, and serves the probes of an orchestrator."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from tokenmw.broker import TokenBroker
from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_flag, checked_instance, positive_seconds
from tokenmw.providers.urls import checked_base_url
from tokenmw.redaction import Unpicklable, without_locals
from tokenmw.status_app.access import Allow, Gate
from tokenmw.status_app.actions import NOTICES, Actions
from tokenmw.status_app.live import Live
from tokenmw.status_app.page import page
from tokenmw.status_app.readiness import Readiness, Ready
from tokenmw.status_app.report import Reporter, loop_lag
from tokenmw.status_app.style import CONTENT_SECURITY_POLICY

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
_ACTIONS: Final = frozenset({"/retry", "/invalidate", "/reset-session"})
_WHO: Final = (
    "StatusApp needs allow=…, a function of the connection that says who may see the status; or allow_all=True, if "
    "something in front of it decides."
)


class StatusApp(Unpicklable):
    """Shows the status of a broker in this process; to be mounted in the program's application.

        app.mount("/_tokenmw", StatusApp(broker, allow=is_operator))

    - `GET /livez` is 200 unless the event loop is late by more than `max_lag`; `GET /readyz` is 200 once this process
      had the tokens that it needs, and never 503 because of Redis. Both are open to all: they say nothing else.
    - `GET /` is a page, `GET /events` keeps it up to date, and `GET /status.json` is the same as JSON.
    - `POST /retry`, `/invalidate` and `/reset-session` are the forms of that page, with `allow_actions`. Only pages of
      the same origin may send them, and each is a line in the log, at the level INFO.

    None of it has a secret, an API key, a session id, or the name of a tenant or user.

    Args:
        broker: The broker.
        allow: Which requests see the status: `(connection) -> object`, sync or async. A falsy value is a 403, as is
            `HTTPException(401)` with its headers or `HTTPException(403)`. Any other exception, or a value that is true
            whatever was meant, such as a generator, is a 503 and a log line.
        allow_all: True in place of `allow`: everyone who reaches the application sees the status.
        allow_actions: Which of these requests may also act, as `allow`. Default: none.
        ready: The names of the providers whose tokens this process needs, or a policy `(status) -> bool`, sync or
            async, that decides alone. Default: all names whose credentials do not depend on the request.
        max_lag: Seconds by which the event loop may be late for `/livez`.
        public_url: The URL at which browsers reach this application, such as `"https://app.example/_tokenmw"`; forms
            are refused from pages of other origins. Default: as the request says.

    Raises:
        ConfigurationError: Neither `allow` nor `allow_all` is given, or an option cannot work.
    """

    __slots__ = ("_actions", "_gate", "_gate_of_actions", "_live", "_max_lag", "_public_url", "_readiness", "_reporter")

    @without_locals
    def __init__(
        self,
        broker: TokenBroker,
        *,
        allow: Allow | None = None,
        allow_all: bool = False,
        allow_actions: Allow | None = None,
        ready: Ready = None,
        max_lag: float = 1.0,
        public_url: str | None = None,
    ) -> None:
        checked_instance(broker, TokenBroker, option="StatusApp(broker)", example="TokenBroker(…)")
        checked_flag(allow_all, option="StatusApp(allow_all=…)")
        if (allow is None) is not allow_all:
            raise ConfigurationError(_WHO)
        log, seconds = broker._settings.log, broker._settings.limits.wait_seconds
        self._gate = None if allow is None else Gate(allow, option="allow", log=log, seconds=seconds)
        self._gate_of_actions: Gate | None = None
        if allow_actions is not None:
            self._gate_of_actions = Gate(allow_actions, option="allow_actions", log=log, seconds=seconds)
        self._readiness = Readiness(broker, ready, seconds=seconds)
        self._reporter = Reporter(broker)
        self._actions = Actions(broker, self._reporter)
        self._live = Live(broker, self._reporter)
        self._public_url: str | None = None
        if public_url is not None:
            self._public_url = checked_base_url(public_url, option="StatusApp(public_url=…)", allow_http=True)
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
        if path in _ACTIONS:
            return await self._act(path.removeprefix("/"), request)
        handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._page,
            "/events": self._events,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status.json": self._status,
        }
        handle = handlers.get(path)
        if handle is None:
            return PlainTextResponse("Not found.", HTTPStatus.NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return _only("GET, HEAD")
        return await handle(request)

    async def _act(self, action: str, request: Request) -> Response:
        if request.method != "POST":
            return _only("POST")
        if self._gate_of_actions is None:
            return PlainTextResponse("Not allowed.", HTTPStatus.FORBIDDEN)
        refusal = await self._gate_of_actions.refusal(request)
        if refusal is not None:
            return refusal
        url = request.url
        origin = self._public_url or f"{url.scheme}://{url.netloc}"
        return await self._actions.perform(action, request, base=_root(request.scope), origin=origin)

    async def _page(self, request: Request) -> Response:
        base, forms = _root(request.scope), ""
        if self._gate_of_actions is not None and await self._gate_of_actions.refusal(request) is None:
            forms = self._actions.forms(base=base)
        notice = NOTICES.get(request.query_params.get("done", ""), "")
        content = page(await self._reporter.report(), base=base, actions=forms, notice=notice)
        # With "no-referrer", browsers send `Origin: null` with the forms.
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "same-origin"}
        return HTMLResponse(content, headers=headers)

    async def _events(self, request: Request) -> Response:
        # HEAD has no body, and a listener that is none would hold a place.
        return _only("GET") if request.method == "HEAD" else self._live.respond()

    async def _livez(self, _request: Request) -> Response:
        return _probe(await loop_lag() <= self._max_lag)

    async def _readyz(self, _request: Request) -> Response:
        return _probe(await self._readiness.is_ready())

    async def _status(self, _request: Request) -> Response:
        return JSONResponse({**await self._reporter.report(), "loop_lag": await loop_lag()})

    def __repr__(self) -> str:
        return "<StatusApp>"


def _probe(good: bool) -> Response:  # noqa: FBT001  the only argument
    return PlainTextResponse("ok") if good else PlainTextResponse("not ok", HTTPStatus.SERVICE_UNAVAILABLE)


def _only(methods: str) -> Response:
    return PlainTextResponse(f"Only {methods}.", HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": methods})


def _root(scope: Scope) -> str:
    root: str = scope.get("root_path", "")
    # A path that begins with two slashes would be taken for another host.
    return f"/{root.strip('/')}" if root.strip("/") else ""


def _path_below(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path[len(root) :] if path == root or path.startswith(f"{root}/") else path
    return below or "/"
