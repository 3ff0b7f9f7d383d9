"""The errors, as a tree: what each one means, and what to do about it.

    TokenmwError
    ├── ConfigurationError     an option or an argument cannot work                     fix the one it names
    └── RequestError           one request cannot be served; also a starlette HTTPException
        ├── TokenUnavailable   503  there is no valid token now                         retry after `retry_after`
        ├── CredentialRejected 502  the provider rejects the credential                 fix the credential
        ├── SessionUnavailable 503  there is no session id that all instances share     retry
        ├── APIKeyRefused      401  the caller's API key is missing or refused          send a valid key
        ├── SubjectRefused     401  the caller's own access token is refused elsewhere  get a new one
        └── ReconnectRequired  403  the user has to connect the account (again)         follow `connect_url`

The error of a request has two texts. `str(error)` is the operator's: host, option, provider and fix. It goes into the
log, `status()` and the failure notes of other processes. `error.detail` is what callers see: problem details, Starlette
and FastAPI show it. It names nothing internal, and for most classes it is one fixed sentence.

Neither text holds a secret, a token or an API key: they name the option or the provider, never a value.
"""

from __future__ import annotations

import base64
import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "APIKeyRefused",
    "ConfigurationError",
    "CredentialRejected",
    "ReconnectRequired",
    "RequestError",
    "SessionUnavailable",
    "SubjectRefused",
    "TokenUnavailable",
    "TokenmwError",
]

E = TypeVar("E", bound=Exception)

NOT_SIGNED_IN: Final = "not signed in"


class TokenmwError(Exception):
    """The base class of every error that this package raises on purpose."""


class ConfigurationError(TokenmwError, ValueError):
    """Raised for an option or argument that cannot work; the text names it and the fix."""


class RequestError(TokenmwError, HTTPException):
    """The base class of the errors of one request, each with its HTTP response.

    An application's exception handler for :class:`TokenmwError` or for starlette's `HTTPException` catches them.

    Args:
        text: The operator's text, which `str(error)` returns. Without one, it is `detail`.
        detail: What callers see. Default: `fixed_detail` of the class; for a class without one, `text`.
        headers: Response headers that the status needs, such as `Retry-After`.

    Attributes:
        status_code: The HTTP status.
        detail: What callers see; it names nothing internal.
        fixed_detail: The `detail` of each error of the class, or None. A subclass can have its own.
        headers: Response headers that the status needs, such as `Retry-After`.
        place: Where a provider's own code or function raised the exception behind this error, as `module:line`; else
            "". The log and a note of this error have it, `detail` does not.
        close_code: The WebSocket close code that replaces the response before `accept` (RFC 6455 §7.4).
    """

    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    fixed_detail: ClassVar[str | None] = None
    place: str = ""
    _text: str = ""
    _cause: Any = None  # the `tokens.failures.Cause` of an error that another entry's failure caused

    def __init__(self, text: str = "", *, detail: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(self.status, detail or self.fixed_detail or text or None, headers)
        self._text = text or self.detail

    def at(self, place: str) -> Self:
        """Set the place of this error, unless it is "", and return the error. For this package's own modules."""
        if place:
            self.place = place
            self.add_note(f"Raised at {place}.")
        return self

    def with_reason(self, reason: str) -> Self:
        """Add a reason to the operator's text, and return the error. For this package's own modules."""
        self._text = f"{self._text}; {reason}"
        return self

    def __reduce__(self) -> tuple[object, ...]:
        # Process pools and task queues pickle errors. The cause stays behind: it refers to a token entry.
        return type(self), (self._text,), {name: part for name, part in self.__dict__.items() if name != "_cause"}

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"


class TokenUnavailable(RequestError):
    """Raised when there is no valid token of a provider now; a later attempt may succeed.

    A provider's `fetch` raises it for every failure that is not the credential's fault.

    Attributes:
        provider: The provider's name.
        retry_after: Seconds until the next attempt can succeed, or None.
        said: Whether the provider itself answered so (429, 5xx), and would answer the same to other instances. Such
            failures are shared between them. Network faults and malformed responses may concern this machine alone, so
            that they are shared for seconds.
    """

    status = 503
    close_code = 1013
    fixed_detail = "The service cannot get an access token that this request needs. Try again later."

    def __init__(
        self,
        text: str = "",
        *,
        provider: str = "",
        retry_after: float | None = None,
        said: bool = False,
        detail: str | None = None,
    ) -> None:
        self.provider = provider
        self.retry_after = retry_after
        self.said = said
        super().__init__(text, detail=detail, headers=_retry_after(retry_after))


class CredentialRejected(RequestError):
    """Raised when a provider rejects the credential itself: a wrong secret, a disabled app.

    Attributes:
        provider: The provider's name.
        code: The provider's own error code, such as `invalid_client`, or "".
        retry_after: Seconds until this package asks the provider again, or None.
        said: Whether other instances would get the same answer; False if it concerns this machine's address.
    """

    status = 502
    close_code = 1013
    fixed_detail = "Another service rejects the credential of this one. Only its operator can fix that."

    def __init__(
        self,
        text: str = "",
        *,
        provider: str = "",
        code: str = "",
        retry_after: float | None = None,
        said: bool = True,
        detail: str | None = None,
    ) -> None:
        self.provider = provider
        self.code = code
        self.retry_after = retry_after
        self.said = said
        super().__init__(text, detail=detail, headers=_retry_after(retry_after))


class SessionUnavailable(RequestError):
    """Raised when there is no session id that all instances share, or when `authenticate` cannot decide.

    Attributes:
        retry_after: Seconds until the next attempt can succeed, or None.
    """

    status = 503
    close_code = 1013
    fixed_detail = "The service cannot identify the caller of this request now. Try again later."

    def __init__(self, text: str = "", *, retry_after: float | None = None, detail: str | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text, detail=detail, headers=_retry_after(retry_after))


class APIKeyRefused(RequestError):
    """Raised when a request's API key is missing, malformed or refused (RFC 9110 §11.6.1).

    The caller sees its text: the program's `authenticate` raises it with a text written for its callers. Without one,
    the caller sees a fixed sentence.
    """

    status = 401
    close_code = 1008

    def __init__(self, text: str = "", *, challenge: str = "Bearer", detail: str | None = None) -> None:
        text = text or detail or self.fixed_detail or "The API key is not accepted."
        super().__init__(text, detail=detail, headers={"WWW-Authenticate": challenge})


class SubjectRefused(RequestError):
    """Raised when another service refuses the caller's own access token, from which it would make the one needed.

    The response has a `WWW-Authenticate` header (RFC 6750 §3). If that service wants more claims, the header has them
    for the caller's identity library, as of Microsoft's: `error="insufficient_claims", claims="…"`, in base64.

    Attributes:
        provider: The provider's name.
        code: The service's own error code, such as `invalid_grant`; "" if the request has no token at all.
        claims: The claims that a new token needs (a JSON object as text), or "".
        said: Whether the service itself answered so; False if it was not asked, because the token has expired.
    """

    status = 401
    close_code = 1008
    fixed_detail = "The access token of this request is missing, or another service does not accept it."

    def __init__(
        self,
        text: str = "",
        *,
        provider: str = "",
        code: str = "invalid_token",
        claims: str = "",
        said: bool = True,
        detail: str | None = None,
    ) -> None:
        self.provider = provider
        self.code = code
        self.said = said
        self.claims = claims
        super().__init__(text, detail=detail, headers={"WWW-Authenticate": _subject_challenge(code, claims)})


class ReconnectRequired(RequestError):
    """Raised when the user of a request has no connection to an app, or one that can no longer be used.

    The problem document has `connect_url`, so that a front end can send the user there. The status is 403, or 401 if
    the request has no user at all.

    Attributes:
        provider: The app's name.
        connect_url: Where the user connects the account: a path or a URL; "" if there is none.
        reason: Why: `"not signed in"`, `"not connected"`, or what ended the connection, such as `"invalid_grant"`.
    """

    status = 403
    close_code = 1008
    fixed_detail = "The user of this request has to connect the account, or to connect it again."

    def __init__(
        self, text: str = "", *, provider: str = "", connect_url: str = "", reason: str = "", detail: str | None = None
    ) -> None:
        self.provider = provider
        self.connect_url = connect_url
        self.reason = reason
        super().__init__(text, detail=detail)
        if reason == NOT_SIGNED_IN:
            self.status_code = 401
            self.headers = {"WWW-Authenticate": "Bearer"}


def _subject_challenge(code: str, claims: str) -> str:
    if claims:
        encoded = base64.b64encode(claims.encode()).decode()
        return f'Bearer error="insufficient_claims", claims="{encoded}"'
    # A request without any token gets no code (RFC 6750 §3.1).
    return 'Bearer error="invalid_token"' if code else "Bearer"


def _retry_after(seconds: float | None) -> dict[str, str] | None:
    # RFC 9110 §10.2.3 has whole seconds only. Rounded down, it would invite a request that fails again.
    return None if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def copy_of(error: E, traceback: TracebackType | None) -> E:
    """Return an equal exception to raise once, with the traceback that the error had before its first raise.

    An exception that is raised again and again collects the frames of every raise, and with them all that their
    variables hold. One that cannot be copied is returned itself: then it holds the frames of its last raise.
    """
    again = _copied(error)
    again.__cause__, again.__context__ = error.__cause__, error.__context__
    again.__suppress_context__ = error.__suppress_context__
    if again is not error and hasattr(error, "__notes__"):
        again.__notes__ = list(error.__notes__)  # else a note that is added to the copy stays with the error
    return again.with_traceback(traceback)


def _copied(error: E) -> E:
    # The program's class may compose its text in its constructor, or need other arguments than `args`.
    for attempt in (copy.copy, _copied_without_constructor):
        try:
            again = attempt(error)
            if type(again) is type(error) and str(again) == str(error):
                return again
        except Exception:  # noqa: BLE001, S112  whatever the program's class raises
            continue
    return error


def _copied_without_constructor(error: E) -> E:
    again: E = BaseException.__new__(type(error), *error.args)
    again.__dict__.update(error.__dict__)
    return again
