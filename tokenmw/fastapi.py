"""What FastAPI applications annotate their parameters with. The only module that imports fastapi.

The aliases work in HTTP and WebSocket routes, sync and async, behind :class:`tokenmw.TokenMiddleware` or in an
application whose lifespan is the broker's.
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
    """Raised at import; an ImportError, too, for programs that probe which extras they have."""


try:
    from fastapi import Depends
    from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer, SecurityBase
    from fastapi.security.base import SecurityBase as SecurityScheme
except ImportError:
    raise _FastAPIMissing('tokenmw.fastapi needs FastAPI: pip install "tokenmw[fastapi]"') from None

__all__ = ["SessionID", "Tokens", "token_from"]


class _Lock(SecurityScheme):
    """Shows in the OpenAPI document where the API key goes, and decides nothing.

    FastAPI's own schemes answer 401 or 403 by themselves; here `missing_key` and `authenticate` of the broker do.
    """

    def __init__(self, model: SecurityBase, *, name: str) -> None:
        self.model = model
        self.scheme_name = name

    async def __call__(self) -> None:
        # Without parameters, so that it serves WebSockets as well; async, so that it costs no worker thread.
        return


_BEARER: Final = _Lock(HTTPBearer(description="The API key as a bearer token."), name="BearerAPIKey")
_HEADER: Final = _Lock(
    # By alias, as FastAPI's own schemes do it: `in` is a keyword, and `in_` is not what a type checker sees.
    APIKey.model_validate({"in": APIKeyIn.header, "name": "x-api-key", "description": "The API key in a header."}),
    name="HeaderAPIKey",
)


async def _locked_session_id(
    known: Annotated[str, Depends(session_id)],
    _bearer: Annotated[None, Depends(_BEARER)],
    _header: Annotated[None, Depends(_HEADER)],
) -> str:
    return known


SessionID = Annotated[str, Depends(_locked_session_id)]
"""The session id of the caller's API key, with the locks of the default `APIKeySource` in `/docs`.

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


def token_from(provider: Callable[..., Any]) -> Callable[..., Awaitable[Token]]:
    """Return a dependency that gives the token of a credential which another dependency chooses.

        async def crm_of_tenant(tenant: str, database: Database) -> Provider:
            return ClientCredentials(...)

        CRM = Annotated[Token, Depends(token_from(crm_of_tenant))]

        @app.get("/{tenant}/contacts")
        async def contacts(crm: CRM) -> None: ...

    Two calls with one dependency give equal ones. When it is used it may raise `TokenUnavailable` (503),
    `CredentialRejected` (502), `APIKeyRefused` (401) where the broker checks callers, or a `ConfigurationError` if
    what was chosen is no provider.

    Raises:
        ConfigurationError: It was not given a dependency.
    """
    if isinstance(provider, Provider):
        raise ConfigurationError("token_from takes a dependency that returns a Provider: lambda: provider.")
    if not callable(provider):
        raise ConfigurationError(f"token_from takes a dependency, not {type(provider).__name__}.")
    return _TokenFrom(provider)


class _TokenFrom(Unpicklable):
    """A dependency; equal to every other one over the same dependency."""

    __slots__ = ("__signature__", "_dependency")

    def __init__(self, dependency: Callable[..., Any]) -> None:
        self._dependency = dependency
        # FastAPI reads what to inject from the signature.
        named = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter("connection", named, annotation=HTTPConnection),
                inspect.Parameter("provider", named, default=Depends(dependency), annotation=Any),
            ],
            return_annotation=Token,
        )

    async def __call__(self, *, connection: HTTPConnection, provider: Any) -> Token:
        if not isinstance(provider, Provider):
            given = type(provider).__name__
            del provider  # perhaps the secret itself; reports of errors show the variables of each frame
            raise ConfigurationError(f"The dependency given to token_from must return a Provider, not {given}.")
        tokens = await request_tokens(connection)
        return await tokens._broker.token(provider)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TokenFrom) and other._dependency == self._dependency

    def __hash__(self) -> int:
        return hash((_TokenFrom, self._dependency))

    def __repr__(self) -> str:
        # Its name alone: a functools.partial would tell its arguments, too.
        return f"token_from({getattr(self._dependency, '__qualname__', type(self._dependency).__name__)})"
