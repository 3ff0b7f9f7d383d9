"""An API that takes the issued tokens (RFC 6750)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.testing.provider_server.endpoint import Endpoint, json_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault

__all__ = ["BearerAPI"]


class BearerAPI(Endpoint):
    """`/api/…`: answers who the token was issued to and how many bytes came, or 401."""

    name = "api"
    path = "/api/{path:path}"
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Take a token that is known, not expired and not revoked (RFC 6750 §3.1)."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            # RFC 6750 §3: no error code for a request that did not try.
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
        return json_response(fault.change(content))
