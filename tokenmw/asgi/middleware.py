"""The middleware: a session id and tokens for each request. Pure ASGI."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from tokenmw.asgi.exempt import Exempt, ExemptOption, is_preflight
from tokenmw.asgi.identity import (
    CallerCheck,
    authenticate_connection,
    identify,
    identify_from_cache,
    leave_unchecked,
    requires_authentication,
)
from tokenmw.asgi.lifespan import run_lifespan
from tokenmw.asgi.problems import problem_response, refuse
from tokenmw.asgi.request import tokens_of
from tokenmw.asgi.websocket import WebSocketSend
from tokenmw.broker import MissingKey, TokenBroker
from tokenmw.callers.api_key import APIKeySource
from tokenmw.credentials import checked_names
from tokenmw.errors import ConfigurationError, RequestError
from tokenmw.options import checked_callback, checked_choice, checked_flag, checked_instance
from tokenmw.redaction import Unpicklable, without_locals

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tokenmw.asgi.request import RequestTokens

__all__ = ["TokenMiddleware"]

InjectedNames = Callable[[HTTPConnection], "Iterable[str] | Awaitable[Iterable[str]]"]
OnError = Callable[[HTTPConnection, RequestError], "Response | Awaitable[Response]"]


class TokenMiddleware(Unpicklable):
    """Adds `session_id` and `tokens` to the state of each HTTP request and WebSocket.

    It opens the broker before the application starts, and closes it after the application has stopped.

        app = Starlette(routes=..., middleware=[Middleware(TokenMiddleware, broker=broker, inject=["feishu"])])

    Args:
        app: The application; frameworks give it themselves.
        broker: The program's broker.
        inject: Names of providers whose tokens are resolved before the handler runs, or a callable `(connection) ->
            names`, sync or async. A failure is raised when the handler uses the token. Without names, nothing is
            fetched before a handler resolves a token, and the first request that does waits for the provider.
        sessions: Whether each request gets a `request.state.session_id`. False leaves it out; callers are still
            checked if the broker checks them.
        on_error: `(connection, error) -> Response`, sync or async: makes the response of an error that reaches the
            middleware. By default `application/problem+json` (RFC 9457).
        api_key: Where the API key of a request is found. None: the broker's `api_key`.
        missing_key: `"random"` or `"reject"`. None: the broker's `missing_key`.
        exempt: The requests that are served as without the middleware: no check of the caller, and none of its names in
            the state. Paths, `"/docs"` for itself and `"/static/*"` for all below, or a callable `(connection) ->
            bool`, sync or async. A dependency in such a route still checks the caller.

    Raises:
        ConfigurationError: An option cannot work, or the broker has no provider of a name in `inject`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        broker: TokenBroker,
        inject: Sequence[str] | InjectedNames = (),
        sessions: bool = True,
        on_error: OnError = problem_response,
        api_key: APIKeySource | None = None,
        missing_key: MissingKey | None = None,
        exempt: ExemptOption = (),
    ) -> None:
        if not isinstance(broker, TokenBroker):
            raise ConfigurationError(f"TokenMiddleware(broker=…) must be a TokenBroker, not {type(broker).__name__}.")
        if api_key is not None:
            checked_instance(
                api_key,
                APIKeySource,
                option="TokenMiddleware(api_key=…)",
                example='APIKeySource(headers=["x-api-key"])',
            )
        checked_callback(on_error, option="TokenMiddleware(on_error=…)", takes="(connection, error) -> Response")
        if callable(inject):
            checked_callback(inject, option="TokenMiddleware(inject=…)", takes="(connection) -> names")
        checked_flag(sessions, option="TokenMiddleware(sessions=…)")
        if missing_key is not None:
            checked_choice(missing_key, option="TokenMiddleware(missing_key=…)", choices=("random", "reject"))
        self.app = app
        self._broker = broker
        self._names_of = inject if callable(inject) else None
        self._names = () if callable(inject) else self._checked_names(inject)
        self._sessions = sessions
        self._on_error = on_error
        self._check = CallerCheck(api_key or broker._api_key, missing_key or broker._missing_key)
        broker._data.missing_keys.add(self._check.missing_key)
        self._source = self._check.source
        self._checks_callers = requires_authentication(broker, self._check.missing_key)
        self._needs_api_key = sessions or self._checks_callers or requires_authentication(broker, broker._missing_key)
        self._exempt = Exempt(exempt) if exempt != () else None
        # What no cache decides: a callable of the program, and the check of a caller without a session id.
        self._always_prepare = (
            self._names_of is not None
            or broker._settings.authenticate is not None
            or (self._exempt is not None and self._exempt.by_callable)
            or (self._needs_api_key and not sessions)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            serving = self._serve_other(scope, receive, send)
            del scope  # error reports show the variables of each frame, and the scope holds the API key
            await serving
            return
        started = False

        # A plain function: a coroutine of its own for each part of each body would be slower.
        def send_on(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        tokens = tokens_of(self._broker, scope)
        try:
            # The warm path: with session id and tokens cached, nothing is awaited before the application runs.
            if (
                self._always_prepare
                or scope["method"] == "OPTIONS"
                or (self._exempt is not None and self._exempt.covers_path(scope))
                or (self._sessions and not identify_from_cache(tokens, scope, source=self._source))
                or not tokens._inject_from_cache(self._names)
            ):
                await self._prepare(tokens, scope)
            await self.app(scope, receive, send_on)
        except BaseException as error:
            # Error reports show the variables of this frame, and walk into the scope and the mapping that wraps it.
            kept, scope = _KeptScope(scope), {}
            # Once the response has started, there can be no other; the server closes the connection.
            if started or not isinstance(error, RequestError):
                raise
            await self._refuse(kept, error, receive, send)
        finally:
            tokens._release()

    @without_locals
    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await run_lifespan(self.app, scope, receive, send, broker=self._broker, warm=self._names)
        elif kind == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket_send = WebSocketSend(send, scope)
        tokens = tokens_of(self._broker, scope)
        try:
            await self._prepare(tokens, scope)
            await self.app(scope, receive, websocket_send)
        except BaseException as error:
            kept, scope = _KeptScope(scope), {}
            if not isinstance(error, RequestError):
                raise
            if websocket_send.started:
                await websocket_send.abort()
                raise
            await self._refuse(kept, error, receive, send)
        finally:
            tokens._release()

    @without_locals
    async def _prepare(self, tokens: RequestTokens, scope: Scope) -> None:
        exempt = self._exempt is not None and await self._exempt.covers(scope)
        if exempt or (self._checks_callers and is_preflight(scope)):
            leave_unchecked(tokens, scope, self._check)
            return
        if self._needs_api_key:
            check = identify if self._sessions else authenticate_connection
            await check(tokens, scope, source=self._source, missing_key=self._check.missing_key)
        names = self._names
        if self._names_of is not None:
            chosen = self._names_of(HTTPConnection(scope))
            names = self._checked_names(await chosen if inspect.isawaitable(chosen) else chosen)
        if names:
            missing = tokens._inject_fresh(names)
            if missing:
                await tokens._inject(missing)

    def _checked_names(self, names: object) -> tuple[str, ...]:
        return checked_names(names, option="TokenMiddleware(inject=…)", known=self._broker._credentials.names)

    async def _refuse(self, kept: _KeptScope, error: RequestError, receive: Receive, send: Send) -> None:
        response = self._on_error(HTTPConnection(kept.scope), error)
        if inspect.isawaitable(response):
            response = await response
        if not callable(response):
            raise ConfigurationError(
                f"TokenMiddleware(on_error=…) must return a Response, not {type(response).__name__}."
            )
        await refuse(response, kept.scope, receive, send)


class _KeptScope(Unpicklable):
    """A scope in a variable that error reports show without its contents."""

    __slots__ = ("scope",)

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
