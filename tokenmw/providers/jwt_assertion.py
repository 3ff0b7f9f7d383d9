"""The claims of an assertion (RFC 7523 §3), and a signature with the client's secret (`client_secret_jwt`)."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from typing import TYPE_CHECKING, Any, Final, Literal

from tokenmw.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SecretAlgorithm", "client_claims", "signed_with_secret", "timed_claims"]

SecretAlgorithm = Literal["HS256", "HS384", "HS512"]

_LIFETIME: Final = 60  # seconds; one token request takes five at most
# Seconds for which the assertion is valid before it is made: a server whose clock is behind refuses one of the future.
_BEFORE: Final = 10
_DIGESTS: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}


def client_claims(client_id: str, *, audience: str) -> dict[str, Any]:
    """Return the claims of a client's assertion that is valid for 60 seconds, with a `jti` of its own."""
    return timed_claims({"iss": client_id, "sub": client_id, "aud": audience})


def timed_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return claims with the times of an assertion that is valid for 60 seconds, and with a `jti` of its own."""
    now = int(SYSTEM_CLOCK.time())
    return {
        **claims,
        "jti": secrets.token_urlsafe(16),
        "iat": now - _BEFORE,
        "nbf": now - _BEFORE,
        "exp": now + _LIFETIME,
    }


def signed_with_secret(claims: Mapping[str, Any], secret: str, *, algorithm: SecretAlgorithm) -> str:
    """Return the claims as a JWT that is signed with a client secret (RFC 7515 §3.1, RFC 7518 §3.2)."""
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": algorithm, "typ": "JWT"}, claims)]
    signature = hmac.digest(secret.encode(), ".".join(parts).encode(), _DIGESTS[algorithm])
    return ".".join([*parts, _encoded(signature)])


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
