"""Who calls: the session id of a connection, and the caller behind its API key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from tokenmw.errors import APIKeyRefused
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from starlette.types import Scope

    from tokenmw.asgi.request import RequestTokens
    from tokenmw.broker import TokenBroker
    from tokenmw.callers.api_key import APIKeySource

__all__ = ["authenticate_connection", "identify", "identify_from_cache", "requires_authentication"]


def requires_authentication(broker: TokenBroker) -> bool:
    """Return whether a broker lets some callers in only: then nobody gets a token through it unchecked."""
    return broker.parts.callers is not None or broker.missing_key == "reject"


def identify_from_cache(tokens: RequestTokens, scope: Scope, *, source: APIKeySource) -> bool:
    """Give a new connection the session id of a key that was seen here not long ago. Return whether it was.

    This is the warm path; whatever is out of the ordinary is left to `identify`.
    """
    parts = tokens.broker.parts
    if tokens.identified_by is not None or parts.callers is not None:
        return False
    api_key = source.find(scope)
    session_id = None if api_key is None else parts.sessions.known(api_key)
    if session_id is None:
        return False
    scope["state"]["session_id"] = session_id
    tokens.identified_by = source
    return True


@without_locals
async def authenticate_connection(
    tokens: RequestTokens, scope: Scope, *, source: APIKeySource, missing_key: Literal["random", "reject"]
) -> bytes | None:
    """Return the API key of a connection if it may come in, and leave the caller in its state.

    `authenticate` is asked once for a connection and source, whoever else wants to know.

    Raises:
        APIKeyRefused: There is no usable key and `missing_key="reject"`, or `authenticate` refuses the key.
        SessionUnavailable: The key cannot be checked now.
    """
    api_key = source.find(scope)
    if api_key is None and missing_key == "reject":
        raise APIKeyRefused("This service needs an API key.")
    broker = tokens.broker
    callers = broker.parts.callers
    if callers is not None and tokens.authenticated_by is not source:
        state: dict[str, Any] = scope["state"]
        state["caller"] = None
        if api_key is not None:
            broker.ensure_open()
            state["caller"] = await callers.caller(scope, api_key)
    tokens.authenticated_by = source
    tokens.anonymous = api_key is None
    return api_key


@without_locals
async def identify(
    tokens: RequestTokens, scope: Scope, *, source: APIKeySource, missing_key: Literal["random", "reject"]
) -> str:
    """Return the session id of a connection, and leave it in its state, with the caller if there is `authenticate`.

    A connection is identified once by each source: a second middleware of the same broker finds the id there.

    Raises:
        APIKeyRefused: There is no usable key and `missing_key="reject"`, or `authenticate` refuses the key.
        SessionUnavailable: The key cannot be checked now, or the policy wants an id that Redis knows.
    """
    state: dict[str, Any] = scope["state"]
    if tokens.identified_by is source and not (tokens.anonymous and missing_key == "reject"):
        known: str = state["session_id"]
        return known
    api_key = await authenticate_connection(tokens, scope, source=source, missing_key=missing_key)
    broker = tokens.broker
    if api_key is None:
        session_id = str(uuid4())
    else:
        session_id = broker.parts.sessions.known(api_key) or await broker.session_id(api_key)
    state["session_id"] = session_id
    tokens.identified_by = source
    return session_id
