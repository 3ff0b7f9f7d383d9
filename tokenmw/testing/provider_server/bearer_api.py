"""An API that accepts the issued tokens (RFC 6750), bound ones only with proof or certificate (RFC 9449, RFC 8705)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.testing.provider_server.client_certificates import certificate_thumbprint
from tokenmw.testing.provider_server.dpop import ALGORITHMS, DPoPCheck, ProofRefusedError
from tokenmw.testing.provider_server.endpoint import Endpoint, json_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.issued import IssuedToken
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["BearerAPI"]


class BearerAPI(Endpoint):
    """`/api/…`: answers with the token's client and the number of bytes received, or 401.

    Attributes:
        dpop: Verifies the proofs of requests with a DPoP token. With `required`, other tokens are refused.
    """

    name = "api"
    path = "/api/{path:path}"
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")

    def __init__(self, server: ProviderServer) -> None:
        super().__init__(server)
        self.dpop = DPoPCheck()

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept a token that was issued here and is neither expired nor revoked (RFC 6750 §3.1)."""
        return self.dpop.add_nonce(await self._answer(request, fault))

    async def _answer(self, request: Request, fault: Fault) -> Response:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        scheme = scheme.lower()
        if scheme not in ("bearer", "dpop"):
            # RFC 6750 §3: no error code for a request without a token.
            challenge = self._challenge("DPoP" if self.dpop.required else "Bearer")
            return json_response({"error": "no token"}, 401, WWW_Authenticate=challenge)
        token = self.server.issued.find(value)
        try:
            problem = "invalid_token" if token is None else self._problem(request, token, scheme)
        except ProofRefusedError as refused:
            problem = refused.code
        if token is None or problem:
            challenge = self._challenge("DPoP" if scheme == "dpop" else "Bearer", problem)
            return json_response({"error": problem}, 401, WWW_Authenticate=challenge)
        received = len(await request.body())
        content = {
            "client": token.client,
            "scope": token.scope,
            "path": request.url.path,
            "received": received,
        }
        return json_response(fault.change(content | ({"user": token.user} if token.user else {})))

    def _problem(self, request: Request, token: IssuedToken, scheme: str) -> str:
        """Return the error code for a token, "" for one that is accepted."""
        if not self.server.issued.is_good(token) or (self.dpop.required and scheme == "bearer"):
            return "invalid_token"
        if token.certificate and certificate_thumbprint(request) != token.certificate:
            return "invalid_token"  # RFC 8705 §3
        if scheme == "bearer":
            # A bound token without a proof may have been stolen (RFC 9449 §7.2).
            return "invalid_token" if token.thumbprint else ""
        proven = self.dpop.thumbprint(request, token=token.value)
        return "" if proven == token.thumbprint else "invalid_token"

    @staticmethod
    def _challenge(scheme: str, error: str = "") -> str:
        parts = [f'{scheme} realm="api"', f'error="{error}"' if error else ""]
        parts.append(f'algs="{" ".join(ALGORITHMS)}"' if scheme == "DPoP" else "")
        return ", ".join(filter(None, parts))
