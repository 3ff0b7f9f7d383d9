"""Authorization codes: one use, a short lifetime, bound to the client, the redirect URI and the verifier (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from tokenmw.testing.provider_server.families import RefusedError

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.testing.provider_server.families import Families, Family
    from tokenmw.testing.provider_server.user_options import UserOptions

__all__ = ["CHALLENGE", "Code", "Codes"]

CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""The challenge of a verifier by S256: 32 bytes in base64url."""
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(eq=False, kw_only=True)
class Code:
    """One authorization code.

    Attributes:
        value: The code.
        endpoint: The prefix of the token endpoint that takes it, such as `"oauth2"`.
        user: The user who has consented.
        client: The client that asked.
        redirect_uri: Where the code was sent.
        scope: What the user has consented to.
        challenge: The `code_challenge`, or "".
        nonce: The nonce for the id token, or "".
        issuer: The issuer whose endpoint has issued it.
        expires_at: When it expires, by the monotonic clock, in seconds.
        family: What it was exchanged for; None before that.
        used: Whether it was exchanged.
    """

    value: str
    endpoint: str
    user: str
    client: str
    redirect_uri: str
    scope: str
    challenge: str
    nonce: str
    issuer: str
    expires_at: float = 0.0
    family: Family | None = None
    used: bool = False


@final
class Codes:
    """All codes.

    Args:
        families: What codes are exchanged for.
        options: The options, read at each use.
        clock: The clock by which codes expire.
    """

    def __init__(self, families: Families, options: UserOptions, *, clock: Clock) -> None:
        self._families = families
        self._options = options
        self._clock = clock
        self._codes: dict[str, Code] = {}

    def issue(
        self,
        endpoint: str,
        user: str,
        client: str,
        *,
        redirect_uri: str,
        scope: str = "",
        challenge: str = "",
        nonce: str = "",
        issuer: str = "",
    ) -> Code:
        """Return a new code."""
        code = Code(
            value=f"code-{secrets.token_urlsafe(16)}",
            endpoint=endpoint,
            user=user,
            client=client,
            redirect_uri=redirect_uri,
            scope=scope,
            challenge=challenge,
            nonce=nonce,
            issuer=issuer,
            expires_at=self._clock.monotonic() + self._options.code_life,
        )
        self._codes[code.value] = code
        return code

    def find(self, value: str) -> Code | None:
        """Return a code, used or not; None if it was not issued here."""
        return self._codes.get(value)

    def take(self, endpoint: str, value: str, *, client: str, redirect_uri: str | None, verifier: str) -> Code:
        """Use a code.

        Args:
            endpoint: The prefix of the token endpoint.
            value: The code.
            client: The client that sends it.
            redirect_uri: The redirect URI in the token request; None if the endpoint does not take one.
            verifier: The `code_verifier`, or "".

        Raises:
            RefusedError: It is unknown, expired, used (which revokes what it was exchanged for), or of another client,
                redirect URI or verifier.
        """
        code = self._codes.get(value)
        if code is None or code.endpoint != endpoint:
            raise RefusedError("invalid_grant", "unknown")
        if code.client != client:
            raise RefusedError("invalid_grant", "client")
        if code.used:
            if code.family is not None:
                self._families.revoke(code.family, "code")
            raise RefusedError("invalid_grant", "reused")
        if self._clock.monotonic() >= code.expires_at:
            raise RefusedError("invalid_grant", "expired")
        if redirect_uri is not None and code.redirect_uri != redirect_uri:
            raise RefusedError("invalid_grant", "redirect_uri")
        if not _matches(verifier, code.challenge):
            raise RefusedError("invalid_grant", "verifier")
        code.used = True
        return code


def _matches(verifier: str, challenge: str) -> bool:
    """Return whether a verifier has a challenge; without a challenge, a verifier is refused (RFC 9700 §4.8.2)."""
    if not challenge or not _VERIFIER.fullmatch(verifier):
        return not challenge and not verifier
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    return hmac.compare_digest(digest, challenge)
