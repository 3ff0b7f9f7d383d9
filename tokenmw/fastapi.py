"""Annotations for the parameters of FastAPI routes and dependencies. The only module that imports fastapi.

They work in HTTP and WebSocket routes, sync and async, behind :class:`tokenmw.TokenMiddleware` or in an application
that has the broker's lifespan. FastAPI does not take starlette's typed `Request[RequestState]` as an annotation: use a
plain `Request`, and these for what its state holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from starlette.requests import HTTPConnection

from tokenmw.asgi.dependencies import request_tokens, session_id
from tokenmw.asgi.request import RequestTokens
from tokenmw.errors import ConfigurationError
from tokenmw.providers.base import Provider
from tokenmw.redaction import Unpicklable
from tokenmw.values import Token


class _FastAPIMissing(ConfigurationError, ImportError):
    """Raised by the import without FastAPI; also an ImportError, for programs that check which extras they have."""


try:
    from fastapi import Depends
    from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer, SecurityBase
    from fastapi.security.base import SecurityBase as SecurityScheme
except ImportError:
    raise _FastAPIMissing('tokenmw.fastapi needs FastAPI: pip install "tokenmw[fastapi]"') from None

__all__ = ["SessionID", "Tokens", "token_from"]


class _DocumentedScheme(SecurityScheme):
    """Documents in OpenAPI where the API key goes, and checks nothing.

    FastAPI's own schemes respond with 401 or 403 themselves. Here the broker's `missing_key` and `authenticate` decide.
    """

    def __init__(self, model: SecurityBase, *, name: str) -> None:
        self.model = model
        self.scheme_name = name

    async def __call__(self) -> None:
        # Without parameters, so that it works for WebSockets as well; async, so that it takes no worker thread.
        return


_BEARER: Final = _DocumentedScheme(HTTPBearer(description="The API key as a bearer token."), name="BearerAPIKey")
_HEADER: Final = _DocumentedScheme(
    # By alias, as in FastAPI's own schemes: `in` is a keyword, and type checkers do not accept `in_`.
    APIKey.model_validate({"in": APIKeyIn.header, "name": "x-api-key", "description": "The API key in a header."}),
    name="HeaderAPIKey",
)


async def _documented_session_id(
    session: Annotated[str, Depends(session_id)],
    _bearer: Annotated[None, Depends(_BEARER)],
    _header: Annotated[None, Depends(_HEADER)],
) -> str:
    return session


SessionID = Annotated[str, Depends(_documented_session_id)]
"""The session id of the caller's API key. `/docs` shows the headers of the default `APIKeySource`.

    @app.get("/chat")
    async def chat(session: SessionID) -> str:
        return session

In tests: `app.dependency_overrides[session_id] = lambda: "session-1"` with `tokenmw.session_id`.
"""

Tokens = Annotated[RequestTokens, Depends(request_tokens)]
"""The tokens of the request.

    @app.post("/send")
    async def send(tokens: Tokens) -> None:
        token = await tokens.resolve("feishu")
"""


async def _checked(connection: HTTPConnection) -> None:
    """Check the caller. It is not `request_tokens` itself, which tests override with tokens of their own."""
    try:
        await request_tokens(connection)
    except BaseException:
        del connection  # error reports show the variables of each frame, and walk into a mapping
        raise


def token_from(provider: Callable[..., Any]) -> Callable[..., Awaitable[Token]]:
    """Return a dependency that returns the token of a credential that another dependency chooses.

        async def crm_of_tenant(tenant: str, database: Database) -> Provider:
            return ClientCredentials(...)

        CRM = Annotated[Token, Depends(token_from(crm_of_tenant))]

        @app.get("/{tenant}/contacts")
        async def contacts(crm: CRM) -> None: ...

    Two calls with one dependency return equal dependencies. In a request, if the broker checks callers, it raises
    `APIKeyRefused` (401) before it calls the dependency; then `TokenUnavailable` (503), `CredentialRejected` (502), or
    a `ConfigurationError` if the dependency does not return a `Provider`.

    Raises:
        ConfigurationError: `provider` is not a dependency, or is a class of providers.
    """
    if isinstance(provider, Provider):
        raise ConfigurationError("token_from takes a dependency that returns a Provider: lambda: provider.")
    if not callable(provider):
        raise ConfigurationError(
            f"token_from takes a dependency that returns a Provider, not {type(provider).__name__}. For a provider of "
            'the broker, use provider_token("name").'
        )
    given: object = provider
    if isinstance(given, type) and issubclass(given, Provider):
        # FastAPI would make query parameters of its options: a caller could choose the token URL and the secret.
        raise ConfigurationError(
            f"token_from was given the class {given.__name__}: pass a function that returns a provider."
        )
    return _TokenFrom(provider)


class _TokenFrom(Unpicklable):
    """A dependency; two that wrap the same dependency are equal."""

    __slots__ = ("__signature__", "_dependency")

    def __init__(self, dependency: Callable[..., Any]) -> None:
        self._dependency = dependency
        # FastAPI reads from the signature what to pass, and resolves dependencies in its order: the check first, so
        # that a caller without a key does not learn which tenants exist.
        keyword = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter("connection", keyword, annotation=HTTPConnection),
                inspect.Parameter("checked", keyword, default=Depends(_checked), annotation=None),
                inspect.Parameter("provider", keyword, default=Depends(dependency), annotation=Any),
            ],
            return_annotation=Token,
        )

    async def __call__(self, *, connection: HTTPConnection, provider: Any, checked: None = None) -> Token:
        del checked  # FastAPI passes it because it is in the signature
        if not isinstance(provider, Provider):
            given = type(provider).__name__
            # Perhaps the secret itself; error reports show the variables of each frame, and walk into a mapping.
            del connection, provider
            raise ConfigurationError(f"The dependency given to token_from must return a Provider, not {given}.")
        try:
            tokens = await request_tokens(connection)
            return await tokens._broker.token(provider.for_request(connection))
        except BaseException:
            del connection
            raise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TokenFrom) and other._dependency == self._dependency

    def __hash__(self) -> int:
        return hash((_TokenFrom, self._dependency))

    def __repr__(self) -> str:
        # Only the name: the `repr` of a functools.partial shows its arguments.
        return f"token_from({getattr(self._dependency, '__qualname__', type(self._dependency).__name__)})"
