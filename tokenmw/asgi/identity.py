"""The session id of a connection, and the caller that its API key belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tokenmw.broker import STATE_KEY
from tokenmw.errors import APIKeyRefused, RequestError, SessionUnavailable
from tokenmw.observe.events import CallerRefused, SessionResolved
from tokenmw.sessions.derive import SessionIds

if TYPE_CHECKING:
    from starlette.types import Scope

    from tokenmw.asgi.request import RequestTokens
    from tokenmw.broker import MissingKey, TokenBroker
    from tokenmw.callers.api_key import APIKeySource

__all__ = [
    "CallerCheck",
    "authenticate_connection",
    "check_by_dependencies",
    "identify",
    "identify_from_cache",
    "leave_unchecked",
    "requires_authentication",
]

_MISSING: Final = "This service needs an API key."
_UNCHECKED_KEY: Final = "tokenmw.unchecked"  # where an exempt connection's scope has the check that was left out


class CallerCheck(NamedTuple):
    """The options by which callers are checked: those of a middleware, or else of the broker."""

    source: APIKeySource
    missing_key: MissingKey


def requires_authentication(broker: TokenBroker, missing_key: MissingKey) -> bool:
    """Return whether some callers are refused, so that neither the middleware nor a dependency may skip the check."""
    return broker._settings.authenticate is not None or missing_key == "reject"


def leave_unchecked(tokens: RequestTokens, scope: Scope, check: CallerCheck) -> None:
    """Leave an exempt connection as it would be without the middleware: no tokens and no caller in its state.

    A dependency that needs the caller makes the check that is left out here. If an outer middleware of the same broker
    has made it, the connection stays as it is.
    """
    if tokens._authenticated_by is None and tokens._identified_by is None:
        del scope[STATE_KEY]
        scope["state"].pop("tokens", None)
        scope[_UNCHECKED_KEY] = check


def check_by_dependencies(tokens: RequestTokens, scope: Scope) -> CallerCheck:
    """Return the options by which a dependency checks a connection that no middleware has checked."""
    left_out: CallerCheck | None = scope.get(_UNCHECKED_KEY)
    return left_out or CallerCheck(tokens._broker._api_key, tokens._broker._missing_key)


def identify_from_cache(tokens: RequestTokens, scope: Scope, *, source: APIKeySource) -> bool:
    """Put the session id of a connection into its state if it is cached. Return whether it is.

    This is the warm path, for brokers without `authenticate`. `identify` handles every other case.
    """
    runtime = tokens._broker._runtime
    if runtime is None or tokens._identified_by is not None:
        return False
    api_key = source.find(scope)
    session_id = None if api_key is None else runtime.sessions.cached(api_key)
    if session_id is None:
        return False
    scope["state"]["session_id"] = session_id
    tokens._identified_by = source
    return True


async def authenticate_connection(
    tokens: RequestTokens, scope: Scope, *, source: APIKeySource, missing_key: MissingKey
) -> bytes | None:
    """Return the API key of a connection if it is accepted, and put the caller into its state.

    `authenticate` is called once for a connection and source, however many dependencies need the caller.

    Raises:
        APIKeyRefused: There is no usable key and `missing_key="reject"`, or `authenticate` refuses the key.
        SessionUnavailable: The key cannot be checked now.
    """
    api_key, broker = source.find(scope), tokens._broker
    observe = broker._settings.observe
    if api_key is None and missing_key == "reject":
        problem = source.problem(scope)
        observe.count(CallerRefused, "unusable" if problem else "missing")
        raise APIKeyRefused(problem or _MISSING)
    if broker._settings.authenticate is not None and tokens._authenticated_by is not source:
        state: dict[str, Any] = scope["state"]
        state["caller"] = None
        if api_key is not None:
            authenticator = broker._open().authenticator
            if authenticator is None:
                raise SessionUnavailable("The API key cannot be checked now.", retry_after=1.0)
            try:
                state["caller"] = await authenticator.caller(scope, api_key)
            except RequestError as error:
                observe.count(CallerRefused, "refused" if isinstance(error, APIKeyRefused) else "unchecked")
                raise
    tokens._authenticated_by = source
    return api_key


async def identify(tokens: RequestTokens, scope: Scope, *, source: APIKeySource, missing_key: MissingKey) -> str:
    """Return the session id of a connection, and put it into its state, with the caller if there is `authenticate`.

    This is done once for a connection and source: a second middleware of the same broker uses the first one's id.

    Raises:
        APIKeyRefused: There is no usable key and `missing_key="reject"`, or `authenticate` refuses the key.
        SessionUnavailable: The key cannot be checked now, or `session_policy="required"` and Redis is unavailable.
    """
    state: dict[str, Any] = scope["state"]
    if tokens._identified_by is source and (missing_key != "reject" or source.find(scope) is not None):
        identified: str = state["session_id"]
        return identified
    api_key = await authenticate_connection(tokens, scope, source=source, missing_key=missing_key)
    broker = tokens._broker
    if api_key is None:
        session_id = SessionIds.random()
        broker._settings.observe.count(SessionResolved, "random")
    else:
        session_id = broker._session_while_closed(api_key) or await broker._open().sessions.get(api_key)
    state["session_id"] = session_id
    tokens._identified_by = source
    return session_id
