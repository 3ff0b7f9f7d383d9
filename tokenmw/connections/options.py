"""Checks of the options of apps and of `ConnectApp`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.options import credential_text
from tokenmw.providers.request_fields import checked_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_query", "checked_params", "checked_scope", "checked_separator"]

_SET_HERE: Final = "which is set here for each request: leave it out"
_CLIENT: Final = {
    "client_id": "which an option sets: use client_id=…",
    "client_secret": "which an option sets: use client_secret=…",
    "client_assertion": "which an option sets: use client_assertion=…",
    "client_assertion_type": 'which an option sets: use auth_method="private_key_jwt"',
    "scope": "which an option sets: use scope=…",
    "dpop_jkt": "which an option sets: use dpop=…",
    **dict.fromkeys(("code_verifier", "code", "refresh_token", "grant_type", "redirect_uri", "state"), _SET_HERE),
}
_RESERVED: Final = {
    "authorization": _CLIENT
    | dict.fromkeys(("response_type", "code_challenge", "code_challenge_method", "nonce"), _SET_HERE)
    | dict.fromkeys(("response_mode", "request", "request_uri"), "which is not supported: leave it out"),
    "token": _CLIENT,
}


def checked_params(
    params: object, *, option: str, of: Literal["authorization", "token"], also: Iterable[str] = ()
) -> dict[str, str]:
    """Return the parameters that a program adds to a request; one that an option sets is refused, and those of `also`.

    Raises:
        ConfigurationError: It is no dict of text to text, or has a reserved name.
    """
    return checked_fields(
        params, option=option, example={"prompt": "consent"}, reserved=dict.fromkeys(also, _SET_HERE) | _RESERVED[of]
    )


def check_query(url: str | None, *, option: str, also: Iterable[str] = ()) -> None:
    """Raise if the URL of an authorization endpoint has a parameter of the request, which would then be there twice.

    Raises:
        ConfigurationError: It has one; the text names it.
    """
    for name, _ in parse_qsl(urlsplit(url or "").query, keep_blank_values=True):
        if name in _RESERVED["authorization"] or name in also:
            raise ConfigurationError(
                f"{option} has the parameter {name}, which is added for each request: leave it out."
            )


def checked_scope(scope: object, *, option: str) -> str:
    """Return scopes, separated by single spaces.

    Raises:
        ConfigurationError: It is not text.
    """
    if isinstance(scope, (list, tuple, set, frozenset)):
        raise ConfigurationError(f"{option} must be one str, with spaces between the scopes, not a list.")
    return " ".join(credential_text(scope, option=option, empty=True).split())


def checked_separator(separator: object, *, option: str) -> str:
    """Return what stands between scopes.

    Raises:
        ConfigurationError: It is not a space or a comma.
    """
    if separator in (" ", ","):
        return str(separator)
    raise ConfigurationError(f'{option} must be " " or ",".')
