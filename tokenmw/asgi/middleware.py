"""The middleware: a session id and tokens in every request. Pure ASGI."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from tokenmw.asgi.identity import authenticate_connection, identify, identify_from_cache, requires_authentication
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
    """Puts `session_id` and `tokens` into the state of each HTTP request and WebSocket, and opens the broker.

        app = Starlette(routes=..., middleware=[Middleware(TokenMiddleware, broker=broker, inject=["feishu"])])

    Args:
        app: The application.
        broker: The program's broker.
        inject: KeyNames of providers whose tokens are resolved before the handler runs, or a callable, sync or async,
            that gives them for a connection. What goes wrong is raised when the token is used.
        sessions: Whether session ids are made. Where callers are checked, they are all the same.
        on_error: Makes the answer of an error that reaches the middleware, sync or async.
        api_key: Where the API key is found, if not where the broker says.
        missing_key: `"random"` or `"reject"`, if not as the broker says.

    Raises:
        ConfigurationError: An option cannot work, or a name is not one of the broker's.
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
        self._choose = inject if callable(inject) else None
        self._names = (
            ()
            if callable(inject)
            else checked_names(inject, option="TokenMiddleware(inject=…)", known=broker._credentials.names)
        )
        self._sessions = sessions
        self._on_error = on_error
        self._source = api_key or broker._api_key
        self._missing_key: MissingKey = missing_key or broker._missing_key
        self._checks = sessions or requires_authentication(broker) or missing_key == "reject"
        self._cacheable = sessions and broker._settings.authenticate is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            serving = self._serve_other(scope, receive, send)
            del scope  # reports of errors show the variables of each frame, and the caller's API key is in this one
            await serving
            return
        started = False

        # Not a coroutine of its own: it is called for every piece of every body.
        def answer(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        tokens = tokens_of(self._broker, scope)
        try:
            # When all is known, this is all there is to do: nothing is awaited, so there is no coroutine to make.
            known = not self._checks or (self._cacheable and identify_from_cache(tokens, scope, source=self._source))
            if not known or self._choose is not None or not tokens._inject_from_cache(self._names):
                await self._prepare(tokens, scope)
            await self.app(scope, receive, answer)
        except BaseException as error:
            connection, scope = HTTPConnection(scope), {}
            # Once an answer has begun, nothing else can be answered; the server cuts the connection.
            if started or not isinstance(error, RequestError):
                raise
            await self._refuse(connection, error, receive, send)
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
        answer = WebSocketSend(send, scope)
        tokens = tokens_of(self._broker, scope)
        try:
            await self._prepare(tokens, scope)
            await self.app(scope, receive, answer)
        except BaseException as error:
            connection, scope = HTTPConnection(scope), {}
            if not isinstance(error, RequestError):
                raise
            if answer.started:
                await answer.abort()
                raise
            await self._refuse(connection, error, receive, send)
        finally:
            tokens._release()

    @without_locals
    async def _prepare(self, tokens: RequestTokens, scope: Scope) -> None:
        if self._checks:
            check = identify if self._sessions else authenticate_connection
            await check(tokens, scope, source=self._source, missing_key=self._missing_key)
        cold = tokens._inject_fresh(self._names if self._choose is None else await self._chosen(self._choose, scope))
        if cold:
            await tokens._inject(cold)

    async def _chosen(self, choose: InjectedNames, scope: Scope) -> tuple[str, ...]:
        names = choose(HTTPConnection(scope))
        if inspect.isawaitable(names):
            names = await names
        return checked_names(names, option="TokenMiddleware(inject=…)", known=self._broker._credentials.names)

    async def _refuse(self, connection: HTTPConnection, error: RequestError, receive: Receive, send: Send) -> None:
        response = self._on_error(connection, error)
        if inspect.isawaitable(response):
            response = await response
        await refuse(response, connection.scope, receive, send)
