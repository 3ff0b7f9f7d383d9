"""An API that accepts the issued tokens (RFC 6750)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.testing.provider_server.endpoint import Endpoint, json_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault

__all__ = ["BearerAPI"]


class BearerAPI(Endpoint):
    """`/api/…`: answers with the token's client and the number of bytes received, or 401."""

    name = "api"
    path = "/api/{path:path}"
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept a token that was issued here and is neither expired nor revoked (RFC 6750 §3.1)."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            # RFC 6750 §3: no error code for a request without a token.
            return json_response({"error": "no token"}, 401, WWW_Authenticate='Bearer realm="api"')
        token = self.server.issued.find(value)
        if token is None or not self.server.issued.is_good(token):
            challenge = 'Bearer realm="api", error="invalid_token"'
            return json_response({"error": "invalid_token"}, 401, WWW_Authenticate=challenge)
        received = len(await request.body())
        content = {
            "client": token.client,
            "scope": token.scope,
            "path": request.url.path,
            "received": received,
        }
        return json_response(fault.change(content | ({"user": token.user} if token.user else {})))
