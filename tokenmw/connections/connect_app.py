"""The ASGI application by which users connect their accounts, list them and disconnect them."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tokenmw.connections.app import OAuthApp
from tokenmw.connections.authorize import one_value
from tokenmw.connections.connect_flow import ConnectFlows, problem_of
from tokenmw.connections.connections import checked_subject
from tokenmw.connections.flow_problem import STATUSES, TEXTS, FlowProblem
from tokenmw.connections.origin import base_url_of, checked_public_url, differing_paths, is_from_same_origin
from tokenmw.connections.outcome import Connected, NotConnected
from tokenmw.connections.pages import HEADERS, page, problem, wants_page
from tokenmw.connections.return_paths import ReturnPaths
from tokenmw.connections.scopes import AllowedScopes
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.observe.throttle import warn
from tokenmw.options import checked_callback
from tokenmw.redaction import Unpicklable, without_locals
from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from tokenmw.connections.authorize import PendingFlow
    from tokenmw.connections.flow_parts import BrokerOfUsers
    from tokenmw.connections.user_connections import ConnectionState

__all__ = ["ConnectApp"]

_CALLBACK: Final = "callback"
_DISCONNECT: Final = "disconnect"
_LOG_KIND: Final = "connect"
_LOG_TEXT: Final = "A user could not connect an account of %s: %s"
_NAVIGATE: Final = "navigate"
_FETCHED: Final = (
    "a script or a part of a page requests the URL, and only the browser's own navigation can follow the redirect: "
    "use a link, or location.href"
)
_TITLES: Final = ("Accounts not available", "Account not disconnected")  # without an app's name, and with one
_OTHER_PATH: Final = (
    "ConnectApp is at the path %s, and Connections(connect_path=…), which errors show to users, is %s: give both the "
    "same, by public_url, the mount or connect_path."
)
_OTHER_SECRET: Final = (
    "the cookie of its flow is sealed with a secret that this instance does not have; give all instances the same "
    "secret_key=[…]"
)
_NO_SESSION: Final = (
    "the redirect back has the cookie of its flow and no user: the session's cookie must be SameSite=Lax, because "
    "browsers leave one with SameSite=Strict out, and the user must still be signed in"
)
_LOGGED: Final = frozenset({"foreign", "invalid", "refused", "unavailable"})
_MAX_QUERY: Final = 16 << 10


class ConnectApp(Unpicklable):
    """Serves the requests by which users connect accounts; to be mounted in the program's application.

        app.mount("/connect", ConnectApp(broker, allow=logged_in, return_to=("/settings",)))

    - `GET /NAME` sends the browser to the app's server, `GET /NAME/callback` gets the code. This URL is the redirect
      URI to register at the server. `?return_to=/settings` names one of the allowed paths, and `?scope=calendar` asks
      for one of `scopes`.
    - `POST /NAME/disconnect` forgets the connection and revokes its tokens. Only pages of the same origin may send it.
    - `GET /` returns the states of the user's connections as JSON.

    Args:
        broker: The broker, which has `connections=`.
        allow: Which requests are served: `(connection) -> bool`, sync or async. Anything but True refuses.
        return_to: Paths to which users may return, `"/settings"` for itself or `"/projects/*"` for all below. The first
            one is the default. Default: none; a small page says that the account is connected.
        scopes: Further scopes that a request may ask for, by name for each app: `{"google": {"calendar":
            "https://www.googleapis.com/auth/calendar"}}`. They are added to those of the app and to those that the user
            has granted before. Default: none.
        public_url: The URL at which browsers reach this application, such as `"https://app.example/connect"`. Default:
            as the request says, which must come over https or from this machine.
        on_success: `(connection, connected) -> Response`, sync or async: the response after an account was connected.
            Default: a redirect to the path of `return_to`, or a small page.
        on_error: `(connection, not_connected) -> Response`, sync or async. Default: a small page, or problem details if
            the request does not accept HTML.

    Raises:
        ConfigurationError: An option cannot work, or the broker has no connections.
    """

    __slots__ = (
        "_allow",
        "_checked_path",
        "_connections",
        "_flows",
        "_names",
        "_on_error",
        "_on_success",
        "_public_url",
        "_return_to",
    )

    @without_locals
    def __init__(
        self,
        broker: BrokerOfUsers,
        *,
        allow: Callable[[HTTPConnection], bool | Awaitable[bool]],
        return_to: Iterable[str] = (),
        scopes: Mapping[str, Mapping[str, str]] | None = None,
        public_url: str | None = None,
        on_success: Callable[[HTTPConnection, Connected], Response | Awaitable[Response]] | None = None,
        on_error: Callable[[HTTPConnection, NotConnected], Response | Awaitable[Response]] | None = None,
    ) -> None:
        checked_callback(allow, option="ConnectApp(allow=…)", takes="(connection) -> bool")
        for option, function in (("on_success", on_success), ("on_error", on_error)):
            if function is not None:
                takes = f"(connection, {'connected' if option == 'on_success' else 'not_connected'}) -> Response"
                checked_callback(function, option=f"ConnectApp({option}=…)", takes=takes)
        if getattr(broker, "connections", None) is None:
            kind = type(broker).__name__
            raise ConfigurationError(f"ConnectApp takes a TokenBroker with connections=Connections(…), not {kind}.")
        self._allow = allow
        self._return_to = ReturnPaths(return_to, option="ConnectApp(return_to=…)")
        self._connections = broker.connections
        apps = self._connections.config.apps
        self._names = tuple(name for name, app in apps.items() if isinstance(app, OAuthApp))
        allowed = AllowedScopes(scopes, apps=self._names, option="ConnectApp(scopes=…)")
        self._flows = ConnectFlows(self._connections, scopes=allowed)
        self._public_url = checked_public_url(public_url)
        paths = None if self._public_url is None else self._differing_paths(self._public_url)
        if paths is not None:
            raise ConfigurationError(_OTHER_PATH % paths)
        self._checked_path = self._public_url is not None
        self._on_success = on_success
        self._on_error = on_error

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
        for name, value in HEADERS.items():
            response.headers[name] = value
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        parts = _path_below(request.scope).strip("/").split("/")
        name, action = parts[0], "/".join(parts[1:])
        if name == "" and not action:
            served, handle = "GET", self._list
        elif name not in self._names or action not in ("", _CALLBACK, _DISCONNECT):
            return problem(404, "There is no such account.")
        else:
            served = "POST" if action == _DISCONNECT else "GET"
            handlers = {"": self._begin, _CALLBACK: self._finish, _DISCONNECT: self._disconnect}
            handle = partial(handlers[action], app=name)
        if request.method != served:
            response = problem(405, f"Only {served} is allowed here.")
            response.headers["Allow"] = served
            return response
        try:
            await self._check_allowed(request)
            return await handle(request, subject=await self._subject(request))
        except FlowProblem as error:
            if action == _CALLBACK:
                await self._log_missing_user(request, app=name)
            if name and action != _DISCONNECT:
                return await self._failed(request, error, app=name, return_to=self._return_to.default)
            return await self._shown_problem(
                request, error, app=name, return_to=self._return_to.default, title=_TITLES[bool(name)]
            )

    async def _log_missing_user(self, request: Request, *, app: str) -> None:
        """Log if the browser came back with the cookie of its flow, and without that of its session."""
        with suppress(FlowProblem):
            state = one_value(_query_of(request), "state")
            if not state or self._find(request, state, app=app) is None:
                return
            try:
                await self._subject(request)
            except FlowProblem:
                self._log(app, _NO_SESSION, reason="not_signed_in")

    async def _check_allowed(self, request: Request) -> None:
        allowed: object = self._allow(request)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if allowed is not True and allowed is not False:
            kind = type(allowed).__name__
            raise ConfigurationError(f"ConnectApp(allow=…) must return True or False, not {kind}: use bool(…).")
        if not allowed:
            raise FlowProblem("not_allowed", "ConnectApp(allow=…) refuses the request")

    async def _subject(self, request: Request) -> str:
        subject = self._connections.config.subject(request)
        if inspect.isawaitable(subject):
            subject = await subject
        if subject is None:
            raise FlowProblem("not_signed_in", "the request has no user")
        return checked_subject(subject, option="Connections(subject=…)")

    async def _list(self, request: Request, *, subject: str) -> Response:
        base = base_url_of(request, self._public_url)
        try:
            states = await self._connections.list(subject)
        except TokenUnavailable as error:
            raise problem_of(error) from None
        return JSONResponse({name: _shown(states.get(name), f"{base}/{quote(name, safe='')}") for name in self._names})

    def _differing_paths(self, url: str) -> tuple[str, str] | None:
        return differing_paths(url, connect_path=self._connections.config.connect_path)

    async def _begin(self, request: Request, *, app: str, subject: str) -> Response:
        base = base_url_of(request, self._public_url)
        if not self._checked_path:
            self._checked_path = True
            paths = self._differing_paths(base)
            if paths is not None:
                warn("connect-path", _OTHER_PATH % paths)
        if request.headers.get("sec-fetch-mode", _NAVIGATE) != _NAVIGATE:
            raise FlowProblem("invalid", _FETCHED)
        query = _query_of(request)
        return_to = one_value(query, "return_to") or self._return_to.default
        if return_to and not self._return_to.allows(return_to):
            raise FlowProblem("invalid", "return_to is not one of ConnectApp(return_to=…)")
        begun = await self._flows.begin(
            app,
            subject,
            base=base,
            redirect_uri=_redirect_uri(base, app),
            return_to=return_to,
            scopes=[value for name, value in query if name == "scope"],
            cookies=request.cookies,
        )
        response = Response(status_code=302, headers={"Location": begun.url})
        for line in begun.cookies:
            response.headers.append("Set-Cookie", line)
        return response

    async def _finish(self, request: Request, *, app: str, subject: str) -> Response:
        base = base_url_of(request, self._public_url)
        query = _query_of(request)
        state = one_value(query, "state")
        flow = self._find(request, state, app=app) if state else None
        redirect_uri = _redirect_uri(base, app)
        try:
            connected = await self._flows.finish(flow, query, name=app, subject=subject, redirect_uri=redirect_uri)
            response = await self._succeeded(request, connected)
        except FlowProblem as error:
            return_to = self._return_to.default if flow is None else flow.return_to
            response = await self._failed(request, error, app=app, return_to=return_to)
        if state:
            response.headers.append("Set-Cookie", self._flows.cookies(base).forgotten(state))
        return response

    def _find(self, request: Request, state: str, *, app: str) -> PendingFlow | None:
        try:
            return self._flows.find(request.cookies, state, base=base_url_of(request, self._public_url))
        except Unreadable as unreadable:
            self._log(app, _OTHER_SECRET, reason=unreadable.reason)
            return None

    async def _succeeded(self, request: Request, connected: Connected) -> Response:
        if self._on_success is not None:
            return await _awaited(self._on_success(request, connected), option="on_success")
        if connected.return_to:
            return RedirectResponse(connected.return_to, 303)
        return page("Account connected", "You can close this page.", back="")

    async def _disconnect(self, request: Request, *, app: str, subject: str) -> Response:
        if not is_from_same_origin(request, base_url_of(request, self._public_url)):
            raise FlowProblem("not_allowed", "a page of another site sent the request")
        try:
            await self._connections.disconnect(app, subject)
        except TokenUnavailable as error:
            raise problem_of(error) from None
        if wants_page(request) and self._return_to.default:
            return RedirectResponse(self._return_to.default, 303)
        return Response(status_code=204)

    async def _failed(self, request: Request, error: FlowProblem, *, app: str, return_to: str) -> Response:
        if error.kind in _LOGGED:
            self._log(app, error, reason=error.kind)
        return await self._shown_problem(request, error, app=app, return_to=return_to, title="Account not connected")

    async def _shown_problem(
        self, request: Request, error: FlowProblem, *, app: str, return_to: str, title: str
    ) -> Response:
        failed = NotConnected(app, error.kind, STATUSES[error.kind], TEXTS[error.kind], return_to)
        if self._on_error is not None:
            return await _awaited(self._on_error(request, failed), option="on_error")
        if wants_page(request):
            return page(title, failed.detail, back=return_to, status=failed.status)
        return problem(failed.status, failed.detail, kind=failed.kind)

    def _log(self, app: str, text: object, *, reason: str) -> None:
        log = self._connections.flow_parts().log
        log.problem(f"{_LOG_KIND} {app}", _LOG_TEXT, app, text, provider=app, reason=reason)

    def __repr__(self) -> str:
        return f"<ConnectApp of {', '.join(getattr(self, '_names', ()))}>"


def _path_below(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path


def _redirect_uri(base: str, app: str) -> str:
    return f"{base}/{quote(app, safe='')}/{_CALLBACK}"


def _query_of(request: Request) -> list[tuple[str, str]]:
    raw: bytes = request.scope.get("query_string", b"")
    if len(raw) > _MAX_QUERY:
        raise FlowProblem("invalid", f"the query has more than {_MAX_QUERY} bytes")
    return request.query_params.multi_items()


def _shown(state: ConnectionState | None, connect_url: str) -> dict[str, object]:
    if state is None:
        return {"state": "none", "connect_url": connect_url}
    return {**asdict(state), "connect_url": connect_url}


async def _awaited(result: object, *, option: str) -> Response:
    if inspect.isawaitable(result):
        result = await result
    if not isinstance(result, Response):
        raise ConfigurationError(f"ConnectApp({option}=…) must return a Response, not {type(result).__name__}.")
    return result
