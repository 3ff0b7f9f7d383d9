"""Tokens of users at the test server, and the grants that make other tokens from them."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any, final

from tokenmw.testing.provider_server.endpoint import json_response

if TYPE_CHECKING:
    from starlette.responses import Response

    from tokenmw.clock import Clock
    from tokenmw.testing.provider_server.issued import IssuedTokens

__all__ = [
    "JWT_BEARER",
    "TOKEN_EXCHANGE",
    "Subjects",
    "exchange_refusal",
    "exchanged",
    "interaction_required",
]

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@final
class Subjects:
    """The tokens of users that this server knows, each a JWT with `sub` and `exp`. Nothing verifies its signature.

    subject = server.subjects.issue("ada", lifetime=300)
    server.subjects.refuse(subject)
    """

    def __init__(self, issued: IssuedTokens, *, clock: Clock) -> None:
        self._issued = issued
        self._clock = clock
        self._users: dict[str, str] = {}

    def issue(self, user: str, *, lifetime: float = 3600.0) -> str:
        """Return a new token of a user, which expires after `lifetime` seconds."""
        claims = {"sub": user, "exp": self._clock.time() + lifetime, "jti": secrets.token_hex(8)}
        token = ".".join((_segment({"alg": "none"}), _segment(claims), secrets.token_urlsafe(16)))
        self._users[token] = user
        self._issued.add(token, "subject", user, life=lifetime)
        return token

    def refuse(self, token: str) -> None:
        """Refuse a token of a user from now on."""
        self._issued.revoke(token)

    def user(self, token: str) -> str | None:
        """Return the user of a token; None if it is not known, has expired or is refused."""
        issued = self._issued.find(token)
        return self._users.get(token) if issued is not None and self._issued.is_good(issued) else None


def exchange_refusal(form: dict[str, str]) -> str:
    """Return the error code for a token exchange that misses a field (RFC 8693 §2.1); "" for one that is complete."""
    if not form.get("subject_token") or not form.get("subject_token_type"):
        return "invalid_request"
    return "invalid_request" if ("actor_token" in form) != ("actor_token_type" in form) else ""


def exchanged(form: dict[str, str], content: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a token exchange: a token that is no access token has the type `N_A` (RFC 8693 §2.2.1)."""
    granted = form.get("requested_token_type", ACCESS_TOKEN)
    return {**content, "issued_token_type": granted} | ({} if granted == ACCESS_TOKEN else {"token_type": "N_A"})


def interaction_required(code: int, claims: str) -> Response:
    """Return Entra's answer that the user must prove more: the claims are for the caller's identity library."""
    text = f"AADSTS{code}: the user must satisfy a policy (test server)."
    content = {"error": "interaction_required", "error_description": text, "error_codes": [code]}
    return json_response(content | ({"claims": claims} if claims else {}), 400)


def _segment(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
