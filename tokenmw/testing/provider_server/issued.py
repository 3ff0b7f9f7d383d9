"""The tokens that the test server has issued, and whether they are still valid."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = ["IssuedToken", "IssuedTokens"]


@dataclass
class IssuedToken:
    """One issued token.

    Attributes:
        value: The token.
        endpoint: The endpoint that issued it, such as `"oauth2"`.
        client: The client that it was issued to.
        scope: The requested scope.
        resources: The requested resources (RFC 8707).
        expires_at: When it expires, by the monotonic clock, in seconds.
        revoked: Whether it was revoked before it expired.
        user: The user from whose token it was made, or "".
        certificate: The thumbprint of the certificate that it is bound to (`cnf.x5t#S256`, RFC 8705 §3), or "".
        thumbprint: The thumbprint of the key that it is bound to (`cnf.jkt`, RFC 9449 §6), or "".
    """

    value: str
    endpoint: str
    client: str
    scope: str
    expires_at: float
    revoked: bool = False
    resources: tuple[str, ...] = ()
    user: str = ""
    thumbprint: str = ""
    certificate: str = ""


@final
class IssuedTokens:
    """All issued tokens. Each value is issued once."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._tokens: dict[str, IssuedToken] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def issue(
        self,
        endpoint: str,
        client: str,
        *,
        scope: str = "",
        resources: tuple[str, ...] = (),
        life: float,
        user: str = "",
        thumbprint: str = "",
    ) -> IssuedToken:
        """Issue a new token that expires after `life` seconds."""
        value = f"{endpoint}-{next(self._numbers)}-{secrets.token_urlsafe(12)}"
        token = self.add(value, endpoint, client, scope=scope, life=life)
        token.resources, token.user, token.thumbprint = resources, user, thumbprint
        return token

    def add(self, value: str, endpoint: str, client: str, *, scope: str = "", life: float) -> IssuedToken:
        """Add a token whose value the caller has chosen."""
        token = self._tokens[value] = IssuedToken(value, endpoint, client, scope, self._clock.monotonic() + life)
        return token

    def current(
        self, endpoint: str, client: str, *, scope: str = "", resources: tuple[str, ...] = (), thumbprint: str = ""
    ) -> IssuedToken | None:
        """Return the newest valid token of a client for a scope, resources and a key, or None."""
        wanted = (endpoint, client, scope, resources, thumbprint)
        for token in reversed(self._tokens.values()):
            found = (token.endpoint, token.client, token.scope, token.resources, token.thumbprint)
            if found == wanted and self.is_good(token):
                return token
        return None

    def find(self, value: str) -> IssuedToken | None:
        """Return the token with a value, or None if it was not issued here."""
        return self._tokens.get(value)

    def remaining(self, token: IssuedToken) -> float:
        """Return the seconds until a token expires."""
        return token.expires_at - self._clock.monotonic()

    def is_good(self, token: IssuedToken) -> bool:
        """Return whether an API accepts a token now."""
        return not token.revoked and self.remaining(token) > 0

    def extend(self, token: IssuedToken, *, life: float) -> None:
        """Let a token expire `life` seconds from now, as some servers do when it is requested again."""
        token.expires_at = self._clock.monotonic() + life

    def revoke(self, value: str) -> None:
        """Revoke a token before it expires.

        Raises:
            KeyError: It was not issued here.
        """
        self._tokens[value].revoked = True

    def revoke_all(self) -> None:
        """Revoke every token issued so far."""
        for token in self._tokens.values():
            token.revoked = True
