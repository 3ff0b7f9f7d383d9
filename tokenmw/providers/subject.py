"""Providers whose token is made from another one: that of the request's caller, the subject.

Such a token lives no longer than the subject's, belongs to it by its digest, and is fetched again only for a request.
If the server refuses the subject's token, only the caller can help: it gets a 401.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from starlette.requests import HTTPConnection  # noqa: TC002  FastAPI reads the annotation of `SubjectToken.__call__`

from tokenmw.errors import ConfigurationError, CredentialRejected, SubjectRefused
from tokenmw.options import positive_number, secret_text
from tokenmw.providers.answer import json_object, number
from tokenmw.providers.base import Provider
from tokenmw.redaction import HiddenStr, without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["SubjectProvider", "SubjectToken", "expiry_of_jwt"]

_MAX_SUBJECT: Final = 16 << 10  # characters of a caller's token
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750 §2.1
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_COOKIES: Final = frozenset({"cookie", "set-cookie"})
# They describe the message or the connection (RFC 9110 §6.4, §7.6, §8, §11.7).
_NOT_FOR_TOKENS: Final = frozenset(
    {
        *("accept", "connection", "content-encoding", "content-length", "content-type", "date", "expect", "host"),
        *("keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
        *("user-agent", "www-authenticate"),
    }
)
_SCHEME: Final = re.compile(r"[A-Za-z0-9-]{0,64}")
_SEGMENTS: Final = 3  # of a signed JWT
_ALL_SUBJECTS: Final = "*"  # never sent
_YEAR_5000: Final = 1e11  # seconds since 1970
_OWN_PART: Final = frozenset({"_subject", "_subject_ends", "_checked", "_credential", "_hash", "_part_types"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectToken:
    """Takes the token of a request's caller from a header, by default `Authorization: Bearer …` (RFC 6750 §2.1).

    As the `subject` of a provider, it stands for the token of each request:

    >>> from tokenmw.providers import TokenExchange
    >>> TokenExchange(
    ...     token_url="https://idp.example/token",
    ...     client_id="shop",
    ...     client_secret="…",
    ...     subject=SubjectToken(),
    ...     audience="orders",
    ... )
    <TokenExchange>

    As a FastAPI dependency it returns the token as text: `Annotated[str, Depends(SubjectToken())]`. It does not verify
    the token: the server that exchanges it does.

    Args:
        header: The header's name.
        scheme: The word in front of the token. "" for a header that has the token alone, such as
            `X-Forwarded-Access-Token` behind a proxy that signs users in.

    Raises:
        ConfigurationError: The header or the scheme is not one word, or the header cannot have a token.
    """

    header: str = "Authorization"
    scheme: str = "Bearer"

    def __post_init__(self) -> None:
        for option, pattern in (("header", _HEADER), ("scheme", _SCHEME)):
            given: object = getattr(self, option)
            if not isinstance(given, str) or not pattern.fullmatch(given):
                raise ConfigurationError(f"SubjectToken({option}=…) must be one word of at most 64 characters.")
        if self.header.lower() in _COOKIES:
            raise ConfigurationError(
                f"SubjectToken(header=…): {self.header} has all cookies of a request. For a token in one of them, name "
                f'a function in TokenBroker(…): lambda connection: provider.for_subject(connection.cookies["…"]).'
            )
        if self.header.lower() in _NOT_FOR_TOKENS:
            raise ConfigurationError(
                f"SubjectToken(header=…): {self.header} never has a token: servers and proxies read or set it. Give "
                f"Authorization, or the header of your own proxy."
            )

    @without_locals
    def __call__(self, connection: HTTPConnection) -> str:
        """Return the token of a connection.

        Raises:
            SubjectRefused: The connection has no such token, several, or one that is none.
        """
        lines = connection.headers.getlist(self.header)
        if not lines:
            raise SubjectRefused(f"the request has no {self.header} header with the caller's token", code="")
        scheme, token = "", lines[0].strip()
        if self.scheme:
            scheme, _, token = token.partition(" ")
            token = token.strip()
        if len(lines) > 1 or scheme.lower() != self.scheme.lower() or not token:
            one = f"one token after {self.scheme!r}" if self.scheme else "one token"
            raise SubjectRefused(f"the request's {self.header} header does not have {one}", code="")
        if len(token) > _MAX_SUBJECT or not _B64TOKEN.fullmatch(token):
            raise SubjectRefused(f"the token in the request's {self.header} header is malformed or too long")
        return token


class SubjectProvider(Provider):
    """A provider whose token is made from a subject's token. Classes that derive from it define `identity` and `fetch`.

    Args:
        subject: The subject's token, or a `SubjectToken` that takes it from each request.
        subject_expires_at: When the subject's token expires, in seconds since 1970. Default: its `exp` if it is a JWT,
            else unknown, and the server alone decides how long the new token lives.
    """

    __slots__ = ("_subject", "_subject_ends")

    kind: ClassVar[str] = "subject"
    per_subject = True
    # Without a request, nothing is fetched again.
    renewal_window: float | None = 0.0

    _subject: str | SubjectToken | None
    _subject_ends: float | None

    def _set_subject(self, subject: str | SubjectToken | None, *, expires_at: float | None) -> None:
        name = type(self).__name__
        if expires_at is not None:
            positive_number(expires_at, option=f"{name}(subject_expires_at=…)")
            if isinstance(subject, SubjectToken):
                raise ConfigurationError(
                    f"{name}(subject_expires_at=…) is for one token: with subject=SubjectToken() leave it out."
                )
            if expires_at > _YEAR_5000:
                raise ConfigurationError(
                    f"{name}(subject_expires_at=…) must be in seconds since 1970, not milliseconds."
                )
        self._subject = subject if isinstance(subject, SubjectToken) else _checked_subject(subject, provider=name)
        if isinstance(self._subject, str) and expires_at is None:
            expires_at = expiry_of_jwt(self._subject)
        self._subject_ends = expires_at

    @property
    def depends_on_request(self) -> bool:
        """Whether the subject's token is taken from each request."""
        return isinstance(self._subject, SubjectToken)

    def for_request(self, connection: HTTPConnection) -> Provider:
        """Return this provider with the token of a request's caller as the subject's.

        Raises:
            SubjectRefused: The request has none.
        """
        return self.for_subject(self._subject(connection)) if isinstance(self._subject, SubjectToken) else self

    def for_subject(self, subject: str, *, expires_at: float | None = None) -> Self:
        """Return this provider with another subject's token; its other options are not checked again."""
        other = object.__new__(type(self))
        for cls in type(self).__mro__:
            for name in cls.__dict__.get("__slots__", ()):
                if name not in _OWN_PART and hasattr(self, name):
                    object.__setattr__(other, name, getattr(self, name))
        other._set_subject(subject, expires_at=expires_at)
        return other

    def for_all_subjects(self) -> Self | None:
        """Return the provider that stands for all that differ only in the subject; None if it has no subject."""
        return self.for_subject(_ALL_SUBJECTS) if self.per_subject else None

    def _subject_identity(self) -> str:
        """Return the digest by which the subject's token is a part of the credential."""
        return hashlib.sha256(self._subject_text().encode()).hexdigest()

    def _subject_text(self) -> str:
        if isinstance(self._subject, str):
            return str(self._subject)
        name = type(self).__name__
        raise ConfigurationError(
            f"{name}(subject=SubjectToken()) depends on the request: name it in TokenBroker(…) and use "
            f"request.state.tokens, or give {name}(subject=…) the token's text."
        )

    def _check_subject(self, *, now: float) -> None:
        if self._subject_ends is not None and now >= self._subject_ends:
            raise SubjectRefused("the caller's token has expired", said=False)

    def _capped(self, grant: Grant, *, now: float) -> Grant:
        """Return a grant that ends with the subject's token, and a little before it."""
        seconds = grant.expires_in
        if self._subject_ends is not None:
            seconds = min(seconds, self._subject_ends - now)
        if seconds <= 0:
            raise SubjectRefused("the caller's token has expired")
        # Tokens that are not renewed in the background have no other margin.
        seconds -= min(10.0, seconds / 50)
        return Grant(grant.value, expires_in=seconds, token_type=grant.token_type, extra=grant.extra)


def subject_error(
    error: CredentialRejected, *, codes: Collection[str], claims: str = ""
) -> CredentialRejected | SubjectRefused:
    """Return the error of a refused subject, if the server's code is one of `codes`; else the error itself.

    Args:
        error: What the server answered.
        codes: The codes with which it refuses the subject's token, and not the client.
        claims: The claims that a new token of the caller's needs (a JSON object as text); "" if the server named none.
    """
    return SubjectRefused(error._text, code=error.code, claims=claims) if error.code in codes else error


def expiry_of_jwt(token: str) -> float | None:
    """Return the `exp` of a JWT (RFC 7519 §4.1.4) in seconds since 1970, without verifying it; None if it has none."""
    segments = token.split(".")
    if len(segments) != _SEGMENTS or len(token) > _MAX_SUBJECT:
        return None
    try:
        payload = base64.urlsafe_b64decode(segments[1] + "=" * (-len(segments[1]) % 4))
    except ValueError:
        return None
    claims: dict[str, Any] = json_object(payload) or {}
    return number(claims.get("exp"))


def _checked_subject(subject: object, *, provider: str) -> str:
    if subject is None:
        raise ConfigurationError(f"{provider} needs subject=…: the caller's token, or SubjectToken().")
    if not isinstance(subject, str):
        kind = f"the class {subject.__name__}" if isinstance(subject, type) else type(subject).__name__
        raise ConfigurationError(
            f"{provider}(subject=…) must be SubjectToken(), or the caller's token as a str, not {kind}."
        )
    text = secret_text(subject, option=f"{provider}(subject=…)")
    if len(text) > _MAX_SUBJECT:
        raise ConfigurationError(f"{provider}(subject=…) must have at most {_MAX_SUBJECT} characters.")
    return HiddenStr(text)
