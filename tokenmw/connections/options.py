"""Checks of the options of apps and of `ConnectApp`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, cast

from tokenmw.errors import ConfigurationError
from tokenmw.options import credential_text
from tokenmw.redaction import HiddenStr

__all__ = ["checked_params", "checked_scope", "checked_separator"]

_MAX_FIELDS: Final = 32
_NAME: Final = re.compile(r"[!-~]{1,100}")
_SET_HERE: Final = "is set here for each request: leave it out"
_CLIENT: Final = {
    "client_id": "use client_id=…",
    "client_secret": "use client_secret=…",
    "client_assertion": "use client_assertion=…",
    "client_assertion_type": 'use auth_method="private_key_jwt"',
    "scope": "use scope=…",
    **dict.fromkeys(("code_verifier", "code", "refresh_token", "grant_type", "redirect_uri", "state"), _SET_HERE),
}
_RESERVED: Final = {
    "authorization": _CLIENT
    | dict.fromkeys(("response_type", "code_challenge", "code_challenge_method", "nonce"), _SET_HERE)
    | dict.fromkeys(("response_mode", "request", "request_uri"), "is not supported: leave it out"),
    "token": _CLIENT,
}


def checked_params(params: object, *, option: str, of: Literal["authorization", "token"]) -> dict[str, str]:
    """Return the parameters that a program adds to a request; one that an option sets is refused.

    Raises:
        ConfigurationError: It is no dict of text to text, or has a reserved name.
    """
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise ConfigurationError(
            f'{option} must be a dict, such as {{"prompt": "consent"}}, not {type(params).__name__}.'
        )
    given = dict(cast("Mapping[object, object]", params))
    if len(given) > _MAX_FIELDS:
        raise ConfigurationError(f"{option} has {len(given)} fields: at most {_MAX_FIELDS} are sent.")
    checked: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{option}: the name of a field must be text of 1 to 100 visible ASCII characters, such as prompt."
            )
        if name in _RESERVED[of]:
            raise ConfigurationError(f"{option} has the field {name}: {_RESERVED[of][name]}.")
        checked[name] = HiddenStr(credential_text(value, option=f"{option}: the field {name}"))
    return checked


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
