"""What a token endpoint grants for a user, and its refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenmw.errors import TokenUnavailable
from tokenmw.redaction import Unpicklable, not_encoded

__all__ = ["AccessTokenUnusable", "GrantRefused", "TokenPair"]


@not_encoded
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TokenPair(Unpicklable):
    """An answer of a token endpoint to a code, a refresh token or a device code.

    Attributes:
        access_token: The access token.
        refresh_token: The new refresh token; None: the old one stays valid (RFC 6749 §6).
        expires_in: The access token's lifetime in seconds; infinity if it cannot be refreshed and does not expire.
        scope: The granted scopes, separated by spaces; None: as requested.
        token_type: The type, such as `"Bearer"`.
        id_token: The ID token of OpenID Connect, as text; None if there is none.
        extra: Further fields, as in `Grant.extra`.
    """

    access_token: str
    refresh_token: str | None = None
    expires_in: float
    scope: str | None = None
    token_type: str = "Bearer"
    id_token: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class GrantRefused(Exception):
    """Raised when a server refuses the code or the refresh token itself, such as by `invalid_grant`.

    Attributes:
        code: The server's error code, or "".
    """

    def __init__(self, text: str, *, code: str) -> None:
        super().__init__(text)
        self.code = code


class AccessTokenUnusable(TokenUnavailable):
    """Raised for an answer to a refresh token that has the next one, but no access token that can be used.

    The refresh token is spent, so the next one is to be stored all the same.
    """

    def __init__(self, text: str, *, refresh_token: str) -> None:
        super().__init__(text)
        # A function, because debuggers show an object's attributes.
        self.refresh_token = lambda: refresh_token
