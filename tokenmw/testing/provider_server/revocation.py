"""The revocation endpoint (RFC 7009)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from tokenmw.testing.provider_server.endpoint import Endpoint, json_response

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.fault import Fault

__all__ = ["RevocationEndpoint"]


class RevocationEndpoint(Endpoint):
    """`POST /oauth2/revoke`: a refresh token revokes its whole family, an access token only itself."""

    name = "revocation"
    path = "/oauth2/revoke"

    async def caller(self, request: Request) -> str:
        """Return the client id that a request names."""
        return await self.server.oauth2.caller(request)

    async def answer(self, request: Request, fault: Fault) -> Response:  # noqa: ARG002  the signature is the base's
        """Answer with HTTP 200, also for an unknown token (RFC 7009 §2.2); that of another client is refused (§2.1)."""
        asked = await self.server.oauth2.authenticated(request)
        if isinstance(asked, Response):
            return asked
        token = asked.form.get("token", "")
        if not token:
            return json_response({"error": "invalid_request"}, 400)
        issued, users = self.server.issued.find(token), self.server.users
        family = users.families.find(token)
        owner = family.client if family is not None else issued.client if issued is not None else asked.client
        if owner != asked.client:
            return json_response({"error": "invalid_grant"}, 400)
        if family is not None:
            users.families.revoke(family, "revocation")
        elif issued is not None:
            self.server.issued.revoke(token)
        return Response(status_code=200, headers={"Cache-Control": "no-store"})
