"""The errors, as a tree. Branches are drawn by what the caller can do.

    TokenmwError
    ├── ConfigurationError     the program is wrong: raised when an object is made      mend the option it names
    └── RequestError           one request cannot be served; also a starlette HTTPException
        ├── TokenUnavailable   503  no valid token now                                  try again after `retry_after`
        ├── CredentialRejected 502  the provider refuses the credential                 mend the credential
        ├── SessionUnavailable 503  no session id that all instances agree on           try again
        └── APIKeyRefused      401  the caller's API key is missing or wrong            the caller sends another

No text here holds a secret, a token or an API key: a text names the option or the provider, never a value.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "APIKeyRefused",
    "ConfigurationError",
    "CredentialRejected",
    "RequestError",
    "SessionUnavailable",
    "TokenUnavailable",
    "TokenmwError",
    "copy_of",
]

E = TypeVar("E", bound=Exception)


class TokenmwError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(TokenmwError, ValueError):
    """Raised when an object is made with an option that cannot work; the text names the option and the mend."""


class RequestError(TokenmwError, HTTPException):
    """Base of what can go wrong for one request; carries the HTTP answer with it.

    A handler that an application has for :class:`TokenmwError` or for starlette's `HTTPException` catches it.

    Attributes:
        status_code: The HTTP status.
        detail: What happened, for people; safe to show to a caller.
        headers: Response headers that belong to the status, such as `Retry-After`.
        place: Where your own callable raised what this error stands for, as `module:line`; else "". It is in the log
            and in a note as well, and not in `detail`.
        close_code: The WebSocket close code before `accept` (RFC 6455 §7.4).
    """

    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    place: str = ""
    _cause: Any = None  # of an error that is only passed on: `tokens.failures.Cause`

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(self.status, detail, headers)

    def at(self, place: str) -> Self:
        """Return this error with its place, if there is one. For this package's own modules."""
        if place:
            self.place = place
            self.add_note(f"Raised at {place}.")
        return self

    def __reduce__(self) -> tuple[object, ...]:
        # Process pools and task queues send errors to each other; what is behind this one does not go with it.
        return type(self), (self.detail,), {name: part for name, part in self.__dict__.items() if name != "_cause"}

    def __str__(self) -> str:
        return self.detail


class TokenUnavailable(RequestError):
    """Raised when a provider has no valid token for us now; a later attempt may succeed.

    A provider's `fetch` raises it too, for anything that is not the credential's fault.

    Attributes:
        provider: The provider's name.
        retry_after: Seconds until the next attempt is worth while, or None.
        said: Whether the provider itself answered so (429, 5xx). Such answers are shared between instances;
            network faults and garbage may be this machine's own and are not.
    """

    status = 503
    close_code = 1013

    def __init__(
        self, detail: str, *, provider: str = "", retry_after: float | None = None, said: bool = False
    ) -> None:
        self.provider = provider
        self.retry_after = retry_after
        self.said = said
        super().__init__(detail, headers=_retry_after(retry_after))


class CredentialRejected(RequestError):
    """Raised when a provider refuses the credential itself: a wrong secret, a disabled app.

    Attributes:
        provider: The provider's name.
        code: The provider's own error code, such as `invalid_client`, or "".
        retry_after: Seconds until this package asks again, or None.
        said: Whether other instances would get the same answer; False if it is about the caller's address.
    """

    status = 502
    close_code = 1013

    def __init__(
        self,
        detail: str,
        *,
        provider: str = "",
        code: str = "",
        retry_after: float | None = None,
        said: bool = True,
    ) -> None:
        self.provider = provider
        self.code = code
        self.retry_after = retry_after
        self.said = said
        super().__init__(detail, headers=_retry_after(retry_after))


class SessionUnavailable(RequestError):
    """Raised when no session id can be had that all instances agree on, or `authenticate` could not decide."""

    status = 503
    close_code = 1013

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(detail, headers=_retry_after(retry_after))


class APIKeyRefused(RequestError):
    """Raised when a request's API key is missing, malformed or refused (RFC 9110 §11.6.1)."""

    status = 401
    close_code = 1008

    def __init__(self, detail: str, *, challenge: str = "Bearer") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


def _retry_after(seconds: float | None) -> dict[str, str] | None:
    # RFC 9110 §10.2.3 has whole seconds only; rounding down would invite a request that is refused again.
    return None if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def copy_of(error: E, traceback: TracebackType | None) -> E:
    """Return an equal exception for one raise, with this traceback: that of the error before its first raise.

    One exception object that is raised again and again collects the frames of every raise, and all that they hold. An
    exception of the program that cannot be copied is returned itself, with the frames of earlier raises dropped.
    """
    try:
        again = copy.copy(error)
    except Exception:  # noqa: BLE001  whatever the constructor of the program's exception raises
        again = error
    if type(again) is not type(error):
        again = error
    again.__cause__, again.__suppress_context__ = error.__cause__, error.__suppress_context__
    return again.with_traceback(traceback)
