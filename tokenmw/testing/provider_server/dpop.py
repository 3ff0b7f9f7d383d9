"""Proofs of the possession of a key, verified as real servers do (DPoP, RFC 9449)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

from tokenmw.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ALGORITHMS", "DPoPCheck", "ProofRefusedError"]

ALGORITHMS: Final = ["ES256", "ES384", "ES512", "EdDSA", "PS256", "RS256"]
_WINDOW: Final = 60.0  # seconds by which a proof may be older or younger than the server's time
_ACCEPTED: Final = 16  # the newest nonces, so that requests may be under way while nonces change
_PUBLIC: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


class ProofRefusedError(Exception):
    """Raised for a request whose proof is missing or wrong; `code` is the error of the answer, and `reason` why."""

    def __init__(self, reason: str, *, code: str = "invalid_dpop_proof") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@final
class DPoPCheck:
    """Verifies the proofs of one endpoint: signature, method, URL, time, token and nonce, and that none is used twice.

    It needs the extra `jwt`. The token endpoint and the API have one each, with nonces of their own::

        server.oauth2.dpop.required = True
        server.api.dpop.nonces = True

    Attributes:
        required: Whether requests without a proof are refused. Default: False, they get bearer tokens.
        nonces: Whether each proof must have one of the 16 newest nonces. Each answer then has a new one.
        verified: The claims of each proof that was accepted.
    """

    def __init__(self) -> None:
        self.required = False
        self.nonces = False
        self.verified: list[dict[str, Any]] = []
        self._seen: set[str] = set()
        self._nonces: deque[str] = deque(maxlen=_ACCEPTED)

    def forget_nonces(self) -> None:
        """Refuse every nonce that was sent so far, as a server does that has restarted."""
        self._nonces.clear()

    def add_nonce(self, response: Response) -> Response:
        """Put a new nonce into an answer, if nonces are wanted."""
        if self.nonces:
            self._nonces.append(secrets.token_urlsafe(16))
            response.headers["DPoP-Nonce"] = self._nonces[-1]
        return response

    def thumbprint(self, request: Request, *, token: str = "") -> str:
        """Return the thumbprint of the key that a request proves; "" for one without a proof, if that is allowed.

        Args:
            request: The request.
            token: The access token in it, which the proof must name. Default: it has none.

        Raises:
            ProofRefusedError: The proof is missing or wrong, or has no valid nonce.
        """
        proofs = request.headers.getlist("dpop")
        if not proofs and not self.required and not token:
            return ""
        if len(proofs) != 1:
            raise ProofRefusedError("there must be one DPoP header")
        jwk, claims = _verified(proofs[0])
        url = request.url.replace(query="", fragment="")
        expected = {"htm": request.method, "htu": str(url)}
        if token:
            expected["ath"] = _base64url(hashlib.sha256(token.encode()).digest())
        for name, value in expected.items():
            if claims.get(name) != value:
                raise ProofRefusedError(f"{name} is not that of the request")
        issued = claims.get("iat")
        if not isinstance(issued, (int, float)) or abs(SYSTEM_CLOCK.time() - issued) > _WINDOW:
            raise ProofRefusedError("iat is not recent")
        identifier = claims.get("jti")
        if not isinstance(identifier, str) or not identifier or identifier in self._seen:
            raise ProofRefusedError("jti is missing or was used before")
        if self.nonces and claims.get("nonce") not in self._nonces:
            raise ProofRefusedError("the nonce is missing or too old", code="use_dpop_nonce")
        self._seen.add(identifier)
        self.verified.append(claims)
        public = {name: jwk[name] for name in _PUBLIC[jwk["kty"]]}
        return _base64url(hashlib.sha256(json.dumps(public, separators=(",", ":")).encode()).digest())


def _verified(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the public key in a proof, and the claims that it has signed."""
    import jwt

    try:
        header = jwt.get_unverified_header(proof)
        jwk = header["jwk"]
        if header.get("typ") != "dpop+jwt" or "d" in jwk or header.get("alg") not in ALGORITHMS:
            raise ProofRefusedError("typ, alg or jwk of the header is wrong")
        # `iat` is checked with a window.
        options: Any = {"verify_aud": False, "verify_iat": False}
        key: Any = jwt.get_algorithm_by_name(header["alg"]).from_jwk(jwk)
        claims = jwt.decode(proof, key, algorithms=[header["alg"]], options=options)
    except (jwt.PyJWTError, LookupError, TypeError, ValueError):
        raise ProofRefusedError("it is no JWT that its key has signed") from None
    return jwk, claims


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
