"""Dependencies for FastAPI's `Depends`, and for any other code that has a starlette connection.

They work behind :class:`TokenMiddleware`, and without it in an application that has the broker's lifespan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import HTTPConnection

from tokenmw.asgi.identity import (
    authenticate_connection,
    check_by_dependencies,
    identify,
    requires_authentication,
)
from tokenmw.asgi.request import RequestTokens, tokens_of
from tokenmw.broker import STATE_KEY, TokenBroker
from tokenmw.errors import ConfigurationError
from tokenmw.redaction import without_locals
from tokenmw.startup.declared_names import DeclaredName
from tokenmw.values import Token

__all__ = ["provider_token", "request_tokens", "session_id"]

_NO_BROKER: Final = (
    "This application has no TokenBroker: add Middleware(TokenMiddleware, broker=broker), or "
    "lifespan=broker.lifespan. If it has that lifespan, this server or test client has sent no lifespan events: write "
    "`with TestClient(app)`, or add the middleware, which works without them."
)
_NO_CONNECTION: Final = (
    "A dependency of tokenmw takes a connection, such as a Request, not {}. In FastAPI, Depends passes it. Outside of "
    "a request, use `await broker.session_id(api_key)` and `await broker.token(name)`."
)


def provider_token(name: str) -> Callable[[HTTPConnection], Awaitable[Token]]:
    """Return a dependency that returns a provider's token.

        async def send(feishu: Annotated[Token, Depends(provider_token("feishu"))]): ...

    Two calls with one name return equal dependencies, so a request resolves it once, and `app.dependency_overrides` can
    name it. In a request it raises `TokenUnavailable` (503), `CredentialRejected` (502), `APIKeyRefused` (401) if the
    broker checks callers, or a `ConfigurationError` with the broker's names if it has no such provider.

    Raises:
        ConfigurationError: `name` is not text, or empty.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            'provider_token takes the name of a provider, such as provider_token("feishu"). For a credential that a '
            "dependency chooses, use tokenmw.fastapi.token_from."
        )
    return _ProviderToken(name)


class _ProviderToken(DeclaredName):
    """A dependency; two of the same name are equal."""

    __slots__ = ()

    async def __call__(self, connection: HTTPConnection) -> Token:
        try:
            tokens = _tokens_here(connection)
            if tokens._identified_by is None:
                await _check_caller(tokens, connection)
            return await tokens.resolve(self.name)
        except BaseException:
            del connection  # error reports show the variables of each frame, and walk into a mapping
            raise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ProviderToken) and other.name == self.name

    def __hash__(self) -> int:
        return hash((_ProviderToken, self.name))

    def __repr__(self) -> str:
        return f"provider_token({self.name!r})"


async def session_id(connection: HTTPConnection) -> str:
    """Return the session id of the connection's API key.

    Raises:
        APIKeyRefused: The key is missing and the broker requires one, or `authenticate` refuses it.
        SessionUnavailable: The key cannot be checked now, or `session_policy="required"` and Redis is unavailable.
        ConfigurationError: The application has neither the middleware nor the broker's lifespan.
    """
    try:
        tokens = _tokens_here(connection)
        if tokens._identified_by is not None:
            # By the middleware, whose options may differ from the broker's.
            identified: str = connection.scope["state"]["session_id"]
            return identified
        return await _identify(tokens, connection)
    except BaseException:
        del connection
        raise


async def request_tokens(connection: HTTPConnection) -> RequestTokens:
    """Return the tokens of a connection, unless its caller is refused.

        tokens: Annotated[RequestTokens, Depends(request_tokens)]

    Raises:
        APIKeyRefused: The key is missing and the broker requires one, or `authenticate` refuses it.
        SessionUnavailable: The key cannot be checked now.
        ConfigurationError: The application has neither the middleware nor the broker's lifespan.
    """
    # A coroutine function, because FastAPI runs every other dependency in a worker thread.
    try:
        tokens = _tokens_here(connection)
        if tokens._identified_by is None:
            await _check_caller(tokens, connection)
    except BaseException:
        del connection
        raise
    return tokens


def _tokens_here(connection: HTTPConnection) -> RequestTokens:
    """Return the tokens of a connection without a check of its caller."""
    try:
        tokens = connection.scope[STATE_KEY]
        if isinstance(tokens, RequestTokens):
            return tokens
    except KeyError:  # the first dependency of a connection without the middleware
        pass
    except AttributeError:
        wrong = type(connection).__name__
        del connection
        raise ConfigurationError(_NO_CONNECTION.format(wrong)) from None
    broker = connection.scope.get("state", {}).get(STATE_KEY)
    if not isinstance(broker, TokenBroker):
        del connection
        raise ConfigurationError(_NO_BROKER)
    return tokens_of(broker, connection.scope)


@without_locals
async def _identify(tokens: RequestTokens, connection: HTTPConnection) -> str:
    source, missing_key = check_by_dependencies(tokens, connection.scope)
    return await identify(tokens, connection.scope, source=source, missing_key=missing_key)


@without_locals
async def _check_caller(tokens: RequestTokens, connection: HTTPConnection) -> None:
    # The middleware has checked it by its own options. Without the middleware, and in a request that is exempt from it,
    # a route that needs no session id must not be open to every caller.
    source, missing_key = check_by_dependencies(tokens, connection.scope)
    if tokens._authenticated_by is None and requires_authentication(tokens._broker, missing_key):
        await authenticate_connection(tokens, connection.scope, source=source, missing_key=missing_key)
