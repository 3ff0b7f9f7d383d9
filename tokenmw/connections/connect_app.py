"""The ASGI application by which users connect their accounts, list them and disconnect them."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from starlette._utils import get_route_path
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tokenmw.caches import LRUCache
from tokenmw.connections.authorize import PendingFlow, code_in, one_value
from tokenmw.connections.browser_cookie import FlowCookies
from tokenmw.connections.flow_problem import STATUSES, TEXTS, FlowProblem, ProblemKind
from tokenmw.connections.id_token import checked_claims
from tokenmw.connections.origin import base_url_of, checked_public_url, is_from_same_origin, is_secure
from tokenmw.connections.pages import HEADERS, page, problem, wants_page
from tokenmw.connections.pair import GrantRefused, TokenPair
from tokenmw.connections.return_paths import ReturnPaths
from tokenmw.connections.scopes import AllowedScopes
from tokenmw.connections.store import StoreUnavailable
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.options import checked_callback
from tokenmw.redaction import Unpicklable, without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from tokenmw.clock import Clock
    from tokenmw.connections.app import OAuthApp
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.redis.sealing import Sealer

__all__ = ["ConnectApp", "Connected", "NotConnected"]

_CALLBACK: Final = "callback"
_DISCONNECT: Final = "disconnect"
_LOG_KIND: Final = "connect"
_LOG_TEXT: Final = "A user could not connect an account of %s: %s"
_LOGGED: Final = frozenset({"foreign", "refused", "unavailable"})
_MAX_USED: Final = 4096  # flows that were completed here, each of 32 bytes; a browser forgets its own
_MAX_QUERY: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Connected:
    """What `on_success` gets.

    Attributes:
        app: The app's name.
        subject: The user.
        scope: The granted scopes, separated by spaces.
        return_to: The path to which the user returns; "" if there is none.
    """

    app: str
    subject: str
    scope: str
    return_to: str


@dataclass(frozen=True, slots=True)
class NotConnected:
    """What `on_error` gets.

    Attributes:
        app: The app's name.
        kind: What happened, as of `FlowProblem`.
        status: The HTTP status.
        detail: A sentence for the user.
        return_to: The path to which the user returns; "" if there is none.
    """

    app: str
    kind: ProblemKind
    status: int
    detail: str
    return_to: str


class UsersConnections(Protocol):
    """What `ConnectApp` needs of `broker.connections`."""

    @property
    def apps(self) -> Mapping[str, OAuthApp]:
        """The apps by name."""
        ...

    @property
    def sealer(self) -> Sealer:
        """Seals the cookies of flows; it has a secret."""
        ...

    @property
    def clock(self) -> Clock:
        """The broker's clock."""
        ...

    @property
    def log(self) -> ThrottledLog:
        """The broker's log."""
        ...

    def http(self) -> TokenHTTP:
        """Return what sends token requests in the running event loop."""
        ...

    async def subject_of(self, connection: HTTPConnection, /) -> str | None:
        """Return the user of a request, or None."""
        ...

    async def granted_scope(self, app: str, subject: str, /) -> str:
        """Return the scopes of a connection, separated by spaces; "" without one."""
        ...

    async def complete(self, app: str, subject: str, exchange: Callable[[], Awaitable[TokenPair]], /) -> TokenPair:
        """Run the exchange of a code and store the pair, in a task that outlives the request."""
        ...

    async def states(self, subject: str, /) -> Mapping[str, Mapping[str, Any]]:
        """Return the states of a user's connections by the app's name, as JSON values."""
        ...

    async def disconnect(self, app: str, subject: str, /) -> Any:
        """Forget a connection, and revoke its tokens."""
        ...


class BrokerOfUsers(Protocol):
    """A broker with connections."""

    @property
    def connections(self) -> Any:
        """The `UsersConnections`."""
        ...


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

    __slots__ = ("_allow", "_broker", "_on_error", "_on_success", "_public_url", "_return_to", "_scopes", "_used")

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
            raise ConfigurationError("ConnectApp takes a TokenBroker with connections=….")
        self._broker = broker
        self._allow = allow
        self._return_to = ReturnPaths(return_to, option="ConnectApp(return_to=…)")
        self._scopes = AllowedScopes(scopes, apps=self._connections.apps, option="ConnectApp(scopes=…)")
        self._public_url = checked_public_url(public_url)
        self._on_success = on_success
        self._on_error = on_error
        # The code of a flow is sent once: a second request with it makes servers revoke what the first one got.
        self._used: LRUCache[bytes, None] = LRUCache(_MAX_USED)

    @property
    def _connections(self) -> UsersConnections:
        return cast("UsersConnections", self._broker.connections)

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
        parts = get_route_path(request.scope).strip("/").split("/")
        name, action = parts[0], "/".join(parts[1:])
        if name == "" and not action:
            served, handle = "GET", self._list
        elif name not in self._connections.apps or action not in ("", _CALLBACK, _DISCONNECT):
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
            subject = await self._connections.subject_of(request)
            if not subject:
                raise FlowProblem("not_signed_in", "the request has no user")
            return await handle(request, subject=subject)
        except FlowProblem as error:
            return await self._failed(request, error, app=name, return_to=self._return_to.default)

    async def _check_allowed(self, request: Request) -> None:
        allowed: object = self._allow(request)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if allowed is not True and allowed is not False:
            raise ConfigurationError(f"ConnectApp(allow=…) must return True or False, not {type(allowed).__name__}.")
        if not allowed:
            raise FlowProblem("not_allowed", "ConnectApp(allow=…) refuses the request")

    async def _list(self, request: Request, *, subject: str) -> Response:
        base = base_url_of(request, self._public_url)
        states = await self._connections.states(subject)
        return JSONResponse(
            {
                name: {"state": "none", **states.get(name, {}), "connect_url": f"{base}/{name}"}
                for name in self._connections.apps
            }
        )

    async def _begin(self, request: Request, *, app: str, subject: str) -> Response:
        connections = self._connections
        base = base_url_of(request, self._public_url)
        query = _query_of(request)
        return_to = one_value(query, "return_to") or self._return_to.default
        if return_to and not self._return_to.allows(return_to):
            raise FlowProblem("invalid", "return_to is not one of ConnectApp(return_to=…)")
        asked = self._scopes.asked(app, [value for name, value in query if name == "scope"])
        registered = connections.apps[app]
        granted = await connections.granted_scope(app, subject) if self._scopes.has(app) else ""
        flow = PendingFlow.begin(
            app,
            subject,
            redirect_uri=f"{base}/{app}/{_CALLBACK}",
            scope=self._scopes.joined(app, registered.scope, asked, granted),
            return_to=return_to,
            now=connections.clock.time(),
        )
        try:
            url = await registered.authorization_url(
                connections.http(),
                redirect_uri=flow.redirect_uri,
                state=flow.state,
                challenge=flow.challenge,
                nonce=flow.nonce,
                scope=flow.scope,
            )
        except (TokenUnavailable, CredentialRejected) as error:
            return await self._failed(request, _problem_of(error), app=app, return_to=return_to)
        cookies = FlowCookies(connections.sealer, secure=is_secure(base))
        kept = cookies.kept(flow)
        if kept is None:
            raise FlowProblem("invalid", "scope and return_to are too long for a cookie")
        response = Response(status_code=302, headers={"Location": url})
        for line in (*cookies.surplus(request.cookies), kept):
            response.headers.append("Set-Cookie", line)
        return response

    async def _finish(self, request: Request, *, app: str, subject: str) -> Response:
        base = base_url_of(request, self._public_url)
        cookies = FlowCookies(self._connections.sealer, secure=is_secure(base))
        query = _query_of(request)
        state = one_value(query, "state")
        flow = cookies.find(request.cookies, state, now=self._connections.clock.time()) if state else None
        return_to = self._return_to.default if flow is None else flow.return_to
        try:
            checked = self._checked_flow(flow, app=app, subject=subject, redirect_uri=f"{base}/{app}/{_CALLBACK}")
            response = await self._complete(request, checked, query)
        except FlowProblem as error:
            response = await self._failed(request, error, app=app, return_to=return_to)
        if state:
            response.headers.append("Set-Cookie", cookies.forgotten(state))
        return response

    def _checked_flow(self, flow: PendingFlow | None, *, app: str, subject: str, redirect_uri: str) -> PendingFlow:
        if flow is None:
            raise FlowProblem("expired", "the browser has no cookie of this flow")
        if flow.app != app or flow.redirect_uri != redirect_uri:
            raise FlowProblem("foreign", "the redirect leads to another app than the one that was to be connected")
        if flow.subject != subject:
            raise FlowProblem("other_user", "another user is signed in than at the beginning")
        return flow

    async def _complete(self, request: Request, flow: PendingFlow, query: list[tuple[str, str]]) -> Response:
        connections = self._connections
        app, http = connections.apps[flow.app], connections.http()
        try:
            code = code_in(query, flow, app=app, sends_issuer=await app.sends_issuer(http))
            self._use_once(flow)
            exchange = partial(self._exchange, app, http, flow, code)
            pair = await connections.complete(flow.app, flow.subject, exchange)
        except (GrantRefused, CredentialRejected, TokenUnavailable, StoreUnavailable) as error:
            raise _problem_of(error) from None
        scope = flow.scope if pair.scope is None else pair.scope
        connected = Connected(flow.app, flow.subject, scope, flow.return_to)
        if self._on_success is not None:
            return await _awaited(self._on_success(request, connected), option="on_success")
        if flow.return_to:
            return RedirectResponse(flow.return_to, 303)
        return page("Account connected", "You can close this page.", back="")

    async def _exchange(self, app: OAuthApp, http: TokenHTTP, flow: PendingFlow, code: str) -> TokenPair:
        pair = await app.exchange_code(http, code, verifier=flow.verifier, redirect_uri=flow.redirect_uri)
        if flow.nonce:
            checked_claims(
                pair.id_token,
                issuer=app.dialect.id_token_issuer or app.issuer,
                client_id=app.client_id,
                nonce=flow.nonce,
                now=self._connections.clock.time(),
            )
        return pair

    def _use_once(self, flow: PendingFlow) -> None:
        digest = hashlib.sha256(flow.state.encode()).digest()
        if digest in self._used:
            raise FlowProblem("expired", "the flow was completed before")
        self._used[digest] = None

    async def _disconnect(self, request: Request, *, app: str, subject: str) -> Response:
        if not is_from_same_origin(request, base_url_of(request, self._public_url)):
            raise FlowProblem("not_allowed", "a page of another site sent the request")
        try:
            await self._connections.disconnect(app, subject)
        except (TokenUnavailable, StoreUnavailable) as error:
            raise _problem_of(error) from None
        if wants_page(request) and self._return_to.default:
            return RedirectResponse(self._return_to.default, 303)
        return Response(status_code=204)

    async def _failed(self, request: Request, error: FlowProblem, *, app: str, return_to: str) -> Response:
        if error.kind in _LOGGED:
            self._connections.log.problem(f"{_LOG_KIND} {app}", _LOG_TEXT, app, error, provider=app, reason=error.kind)
        failed = NotConnected(app, error.kind, STATUSES[error.kind], TEXTS[error.kind], return_to)
        if self._on_error is not None:
            return await _awaited(self._on_error(request, failed), option="on_error")
        if wants_page(request):
            return page("Account not connected", failed.detail, back=return_to, status=failed.status)
        return problem(failed.status, failed.detail, kind=failed.kind)

    def __repr__(self) -> str:
        return f"<ConnectApp of {self._broker!r}>"


def _query_of(request: Request) -> list[tuple[str, str]]:
    raw: bytes = request.scope.get("query_string", b"")
    if len(raw) > _MAX_QUERY:
        raise FlowProblem("invalid", f"the query has more than {_MAX_QUERY} bytes")
    return request.query_params.multi_items()


def _problem_of(error: Exception) -> FlowProblem:
    kind: ProblemKind = "refused" if isinstance(error, (GrantRefused, CredentialRejected)) else "unavailable"
    return FlowProblem(kind, str(error))


async def _awaited(result: object, *, option: str) -> Response:
    if inspect.isawaitable(result):
        result = await result
    if not isinstance(result, Response):
        raise ConfigurationError(f"ConnectApp({option}=…) must return a Response, not {type(result).__name__}.")
    return result
