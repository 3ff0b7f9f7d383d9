"""Dependencies for FastAPI's `Depends` and for any code that has a connection; starlette is all they need.

They work behind :class:`TokenMiddleware`, and without it in an application whose lifespan is the broker's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection

from tokenmw.asgi.identity import authenticate_connection, identify, requires_authentication
from tokenmw.asgi.request import RequestTokens, tokens_of
from tokenmw.broker import STATE_KEY, TokenBroker
from tokenmw.errors import ConfigurationError
from tokenmw.values import Token

__all__ = ["provider_token", "request_tokens", "session_id"]

_NO_BROKER = (
    "No TokenBroker serves this application: add Middleware(TokenMiddleware, broker=broker), or "
    "lifespan=broker.lifespan. If that is there, this server or test client has sent no lifespan events: write "
    "`with TestClient(app)`, or add the middleware, which needs none."
)


def provider_token(name: str) -> Callable[[HTTPConnection], Awaitable[Token]]:
    """Return a dependency that gives a provider's token.

        async def send(feishu: Annotated[Token, Depends(provider_token("feishu"))]): ...

    Two calls with one name give equal dependencies, so it is resolved once in a request and can be named in
    `app.dependency_overrides`. When it is used it may raise `TokenUnavailable` (503), `CredentialRejected` (502),
    `APIKeyRefused` (401) where the broker checks callers, or a `ConfigurationError` that lists the known names.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError('provider_token takes the name of a provider, such as provider_token("feishu").')
    return _ProviderToken(name)


class _ProviderToken:
    """A dependency; equal to every other one of the same name."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, connection: HTTPConnection) -> Token:
        tokens = _tokens_here(connection)
        if tokens._identified_by is None:
            await _checked(tokens, connection)
        return await tokens.resolve(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ProviderToken) and other._name == self._name

    def __hash__(self) -> int:
        return hash((_ProviderToken, self._name))

    def __repr__(self) -> str:
        return f"provider_token({self._name!r})"


async def session_id(connection: HTTPConnection) -> str:
    """Return the session id of the connection's API key.

    Raises:
        APIKeyRefused: The key is missing and the broker wants one, or it is refused.
        SessionUnavailable: There is no id to be had now.
    """
    tokens = _tokens_here(connection)
    if tokens._identified_by is not None:
        # By the middleware, whose options may differ from the broker's.
        known: str = connection.scope["state"]["session_id"]
        return known
    broker = tokens._broker
    return await identify(tokens, connection.scope, source=broker._api_key, missing_key=broker._missing_key)


async def request_tokens(connection: HTTPConnection) -> RequestTokens:
    """Return the tokens of a connection, with or without the middleware, if its caller may come in.

    A coroutine function, because FastAPI runs every other dependency in a worker thread.

        tokens: Annotated[RequestTokens, Depends(request_tokens)]

    Raises:
        APIKeyRefused: The key is missing and the broker wants one, or it is refused.
        ConfigurationError: Neither the middleware nor the lifespan has told the application's broker.
    """
    tokens = _tokens_here(connection)
    if tokens._identified_by is None:
        await _checked(tokens, connection)
    return tokens


def _tokens_here(connection: HTTPConnection) -> RequestTokens:
    """Return the tokens of a connection, whoever calls."""
    tokens = connection.scope.get(STATE_KEY)
    if isinstance(tokens, RequestTokens):
        return tokens
    broker = connection.scope.get("state", {}).get(STATE_KEY)
    if not isinstance(broker, TokenBroker):
        raise ConfigurationError(_NO_BROKER)
    return tokens_of(broker, connection.scope)


async def _checked(tokens: RequestTokens, connection: HTTPConnection) -> None:
    # The middleware has done it by its own options; without it, a route without a session id must not be open.
    broker = tokens._broker
    if tokens._authenticated_by is None and requires_authentication(broker):
        await authenticate_connection(tokens, connection.scope, source=broker._api_key, missing_key=broker._missing_key)
