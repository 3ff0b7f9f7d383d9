"""Id tokens (OpenID Connect Core §2), signed with the client's secret or with a key of the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Final, final

from tokenmw.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.testing.provider_server.families import Pair

__all__ = ["IdTokens"]

_KEY_ID: Final = "test-server"


@final
class IdTokens:
    """Signs id tokens.

    Args:
        clock: The clock of `iat` and `exp`.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._key: Any = None

    def keys(self) -> list[dict[str, Any]]:
        """Return the public keys, as JWKs.

        Raises:
            ConfigurationError: PyJWT or cryptography is not installed.
        """
        algorithm = self._rs256()
        jwk: dict[str, Any] = algorithm.to_jwk(self._private_key().public_key(), as_dict=True)
        return [jwk | {"kid": _KEY_ID, "use": "sig", "alg": "RS256"}]

    def issue(self, pair: Pair, *, algorithm: str, secret: str, issuer: str, nonce: str = "") -> str:
        """Return an id token for the user of a pair.

        Args:
            pair: The pair that is issued with it.
            algorithm: `HS256` or `RS256`.
            secret: The client's secret, for `HS256`.
            issuer: The `iss`.
            nonce: The nonce of the authorization request; "" for a refresh.

        Raises:
            ConfigurationError: The algorithm is another one, or PyJWT or cryptography is not installed.
        """
        now = int(self._clock.time())
        claims: dict[str, Any] = {
            "iss": issuer,
            "sub": pair.family.user,
            "aud": pair.family.client,
            "iat": now,
            "exp": now + 3600,
            "at_hash": _segment(hashlib.sha256(pair.access_token.encode()).digest()[:16]),
        }
        if nonce:
            claims["nonce"] = nonce
        if algorithm not in {"HS256", "RS256"}:
            raise ConfigurationError(f"id_token_algorithm is {algorithm!r}; the test server has HS256 and RS256.")
        header = {"alg": algorithm, "typ": "JWT"} | ({"kid": _KEY_ID} if algorithm == "RS256" else {})
        signed = f"{_segment(json.dumps(header).encode())}.{_segment(json.dumps(claims).encode())}"
        return f"{signed}.{_segment(self._signature(signed.encode(), algorithm, secret))}"

    def _signature(self, signed: bytes, algorithm: str, secret: str) -> bytes:
        if algorithm == "HS256":
            return hmac.digest(secret.encode(), signed, "sha256")
        signature: bytes = self._rs256().sign(signed, self._private_key())
        return signature

    def _private_key(self) -> Any:
        if self._key is None:
            from cryptography.hazmat.primitives.asymmetric import rsa

            self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return self._key

    @staticmethod
    def _rs256() -> Any:
        try:
            from jwt.algorithms import RSAAlgorithm
        except ImportError:
            raise ConfigurationError(
                "Id tokens with RS256 need PyJWT and cryptography: pip install 'tokenmw[jwt]'. "
                'Without them, set server.users.id_token_algorithm = "HS256".'
            ) from None
        return RSAAlgorithm(RSAAlgorithm.SHA256)


def _segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
