"""The grant that a provider returns, the token that a handler gets, and the windows of a token's lifetime."""

from __future__ import annotations

import json
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_EXTRA_BYTES", "MAX_LIFETIME", "MAX_TOKEN_BYTES", "Grant", "Token", "Windows", "windows"]

MAX_LIFETIME: Final = 30 * 86_400.0  # seconds; a longer lifetime is a mistake, most often in the unit
MAX_TOKEN_BYTES: Final = 16 << 10
MAX_EXTRA_BYTES: Final = 16 << 10  # of `extra` as JSON in ASCII; it is kept with the token, in memory and in Redis
_MAX_TYPE: Final = 64  # characters of a token type

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Grant(FrozenValue):
    """The result of one token request. A provider's `fetch` returns it: `Grant("t-1", expires_in=7200)`.

    Args:
        value: The token: visible ASCII without spaces, as it goes into a header; at most 16 KiB.
        expires_in: The lifetime in seconds, counted from when `fetch` or `hand_in` was called; cut to 30 days.
        token_type: The scheme in front of the token in an `Authorization` header (RFC 6749 §7.1), at most 64
            characters.
        extra: Other fields of the response that handlers need, such as `instance_url`; JSON values only, at most 16 KiB
            in all. `refresh_in` in it is the number of seconds after which a new token is fetched in the background,
            if that is earlier than usual.

    Raises:
        TokenUnavailable: The value is empty, malformed or too long, the lifetime is not a positive number, `token_type`
            is not one word, or `extra` is not JSON or too long. The text says which, and never holds the value.
    """

    __slots__ = ("expires_in", "extra", "token_type", "value")

    value: str
    expires_in: float
    token_type: str
    extra: Mapping[str, Any]

    @without_locals
    def __init__(
        self,
        value: str,
        *,
        expires_in: float,
        token_type: str = "Bearer",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(value, str) or not value:
            raise TokenUnavailable("the token is empty or not text")
        if len(value) > MAX_TOKEN_BYTES:
            raise TokenUnavailable(
                f"the token is longer than {MAX_TOKEN_BYTES} bytes: check what it is read from, or request fewer scopes"
            )
        # A line break would let the provider add headers to the outgoing requests that carry the token.
        if not (value.isascii() and value.isprintable()) or " " in value:
            if value[:7].lower() == "bearer ":
                raise TokenUnavailable("the token begins with the word `Bearer `: leave it out")
            raise TokenUnavailable("the token has spaces, control characters or characters outside ASCII")
        if isinstance(expires_in, bool) or not isinstance(expires_in, (int, float)):
            raise TokenUnavailable("the token's lifetime is not a number")
        if not expires_in > 0:  # NaN as well
            raise TokenUnavailable("the token has already expired")
        if not isinstance(token_type, str) or not _is_word(token_type):
            raise TokenUnavailable(f"the token's type is not one word of at most {_MAX_TYPE} characters")
        _check_json(extra)
        put = object.__setattr__
        put(self, "value", value)
        put(self, "expires_in", float(min(expires_in, MAX_LIFETIME)))
        put(self, "token_type", token_type)
        put(self, "extra", MappingProxyType(dict(extra)) if extra else _NOTHING)

    def __repr__(self) -> str:
        # An error report may show one whose __init__ has raised.
        return f"<Grant {getattr(self, 'token_type', '?')} of {getattr(self, 'expires_in', 0):.0f} s>"


def _check_json(extra: Mapping[str, Any] | None) -> None:
    # Checked here, so that a wrong value is reported without Redis, too.
    written = _json_of(extra)
    if written is None:
        raise TokenUnavailable("the grant's extra holds a value that is not JSON")
    if len(written) > MAX_EXTRA_BYTES:
        raise TokenUnavailable(f"the grant's extra is longer than {MAX_EXTRA_BYTES} bytes: keep what handlers need")


def _json_of(extra: Mapping[str, Any] | None) -> str | None:
    # None, and no error: from Python 3.14 on, its notes have the keys. Raised `from None`, it would still be a context.
    try:
        return json.dumps(None if extra is None else dict(extra), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_word(text: str) -> bool:
    return len(text) <= _MAX_TYPE and text.isascii() and text.replace("-", "").replace("_", "").isalnum()


class Token(FrozenValue):
    """A provider's access token, as handlers get it.

    It is an object, not the text: `f"{token}"` raises a TypeError, and `str(token)` warns and returns a description.

    Attributes:
        value: The token itself.
        provider: The provider's name by which it was requested.
        expires_at: When it expires, in seconds since 1970 (UTC).
        token_type: The scheme in front of it in an `Authorization` header; `Bearer` for most providers.
        extra: Other fields of the provider's response, such as `instance_url`. Read-only.
    """

    _fix = "Resolve it where it is used."
    __slots__ = ("_origin", "_scheme", "expires_at", "extra", "provider", "token_type", "value")

    value: str
    provider: str
    expires_at: float
    token_type: str
    extra: Mapping[str, Any]
    _scheme: str | None
    _origin: object | None

    def __init__(
        self,
        value: str,
        *,
        provider: str,
        expires_at: float,
        token_type: str = "Bearer",
        extra: Mapping[str, Any] | None = None,
        scheme: str | None = "Bearer",
        origin: object | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "value", value)
        del value  # `extra` may be no mapping, and error reports show the variables of each frame
        put(self, "provider", provider)
        put(self, "expires_at", expires_at)
        put(self, "token_type", token_type)
        put(
            self,
            "extra",
            extra if isinstance(extra, MappingProxyType) else MappingProxyType(dict(extra or {})),
        )
        put(self, "_scheme", scheme)
        # The entry that it belongs to, for invalidate(); opaque outside of `tokens`.
        put(self, "_origin", origin)

    @property
    def authorization(self) -> str:
        """The value of an `Authorization` header, `Bearer …`.

        That of a DPoP token, `DPoP …`, is refused without a proof in the header `DPoP`: auth objects send both, and
        `DPoPKey.proof` makes one.

        Raises:
            ConfigurationError: The provider's API takes the token elsewhere: in a query parameter or another header.
        """
        if self._scheme is None:
            raise ConfigurationError(
                f"{self.provider} does not take its token in the Authorization header: "
                f"use auth=broker.auth({self.provider!r}), which places it correctly."
            )
        return f"{self._scheme} {self.value}"

    def _under(self, provider: str) -> Token:
        """Return the same token with a provider's name: two names may have one credential."""
        if provider == self.provider:
            return self
        return Token(
            self.value,
            provider=provider,
            expires_at=self.expires_at,
            token_type=self.token_type,
            extra=self.extra,
            scheme=self._scheme,
            origin=self._origin,
        )

    def __format__(self, _spec: str) -> NoReturn:
        # A header with a masked text causes a 401 that does not say why.
        raise TypeError(
            "A token in an f-string is not its value: use {token.authorization} for the header, {token.value} for the "
            "token itself, or {token!r} for a log."
        )

    def __str__(self) -> str:
        # No error: loggers and error reports make this text as well, and would lose what they report.
        warnings.warn(
            "str(token) is not the token: send token.authorization or token.value, and log repr(token).",
            RuntimeWarning,
            stacklevel=2,
        )
        return f"<not the token, but a description: Token of {self.provider}>"

    def __repr__(self) -> str:
        return f"<Token of {self.provider}, expires_at={self.expires_at:.0f}>"


class Windows:
    """Two margins before a token's expiry, in seconds.

    Attributes:
        refresh: How long before its expiry a new token is fetched in the background.
        stop: How long before its expiry the token is no longer returned.
    """

    __slots__ = ("refresh", "stop")

    def __init__(self, refresh: float, stop: float) -> None:
        self.refresh = refresh
        self.stop = stop

    def __repr__(self) -> str:
        return f"Windows(refresh={self.refresh:g}, stop={self.stop:g})"


def windows(
    lifetime: float,
    *,
    refresh_before: float | None = None,
    renewal_window: float | None = None,
    refresh_in: float | None = None,
) -> Windows:
    """Return the windows of a token with a lifetime of `lifetime` seconds.

    The refresh window is a quarter of the lifetime, but at most an hour, and at most nine tenths of the provider's
    renewal window, before which the provider would only repeat the old token. `refresh_before` replaces the first two
    bounds, up to half the lifetime. Without it, the window begins `refresh_in` seconds after the grant, if the provider
    says so and that is earlier, but not in the first tenth of the lifetime.

    >>> windows(7200, renewal_window=60)
    Windows(refresh=54, stop=10)
    """
    if refresh_before is not None:
        refresh = min(refresh_before, lifetime / 2)
    else:
        refresh = min(lifetime / 4, 3600.0)
        if refresh_in is not None and 0 < refresh_in < lifetime:
            refresh = max(refresh, min(lifetime - refresh_in, 0.9 * lifetime))
    if renewal_window is not None:
        refresh = min(refresh, 0.9 * renewal_window)
    return Windows(refresh, min(10.0, lifetime / 50, refresh / 4))
