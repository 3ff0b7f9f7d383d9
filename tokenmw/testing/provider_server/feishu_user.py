"""Feishu's tokens of users: `user_access_token`, which are OAuth 2.0 in JSON with the platform's own error codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenmw.testing.provider_server.authorize import AuthorizationEndpoint
from tokenmw.testing.provider_server.endpoint import json_fields
from tokenmw.testing.provider_server.user_grants import AUTHORIZATION_CODE, CREDENTIALS, REFRESH_TOKEN, UserCredential
from tokenmw.testing.provider_server.user_tokens import Asked, UserTokens

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.families import Pair, RefusedError
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["FeishuUserTokens"]

_CODES: Final = {
    "missing": 20001,
    "invalid_client": 20002,
    "expired": 20004,
    "client": 20024,
    "verifier": 20049,
    "invalid_scope": 20068,
    "redirect_uri": 20071,
    "unsupported_grant_type": 20036,
}
_CODES_OF_GRANT: Final = {
    AUTHORIZATION_CODE: {"unknown": 20003, "reused": 20065},
    REFRESH_TOKEN: {"unknown": 20026, "expired": 20037, "revoked": 20064, "reused": 20073},
}


class FeishuAuthorization(AuthorizationEndpoint):
    """`GET /open-apis/authen/v1/authorize`."""

    name = "feishu_authorize"
    path = "/open-apis/authen/v1/authorize"
    more_paths = ()
    pkce = "optional"
    has_iss = False


class FeishuUserTokens(UserTokens):
    """`POST /open-apis/authen/v2/oauth/token`, and `POST /oauth/v3/token`, its successor.

    A refresh token is issued if the scope has `offline_access` and `server.users.offline_scope` says so.
    """

    name = "feishu_user"
    authorization = FeishuAuthorization
    path = "/open-apis/authen/v2/oauth/token"
    more_paths = ("/oauth/v3/token",)
    issuer = "u"  # the platform's prefix of these tokens

    def __init__(self, server: ProviderServer, *, life: float = 7200.0) -> None:
        super().__init__(server, life=life)

    async def read(self, request: Request) -> Asked:
        """Return what a request asks for."""
        fields = await json_fields(request)
        grant = str(fields.get("grant_type", ""))
        credential = UserCredential(
            grant=grant,
            value=str(fields.get(CREDENTIALS.get(grant, ""), "")),
            client=str(fields.get("client_id", "")),
            scope=str(fields.get("scope", "")),
            redirect_uri=str(fields.get("redirect_uri", "")),
            verifier=str(fields.get("code_verifier", "")),
        )
        return Asked(str(fields.get("client_secret", "")), credential)

    def granted(self, pair: Pair, *, grant: str) -> dict[str, Any]:  # noqa: ARG002  the signature is the base's
        """Return the fields at the top level; the platform's other answers have `data` there."""
        content: dict[str, Any] = {
            "code": 0,
            "access_token": pair.access_token,
            "expires_in": pair.expires_in,
            "token_type": "Bearer",
            "scope": pair.scope,
        }
        if pair.refresh_token:
            content["refresh_token"] = pair.refresh_token
            content["refresh_token_expires_in"] = int(self.server.users.refresh_life)
        return content

    def refusal(self, refused: RefusedError, *, grant: str) -> dict[str, Any]:
        """Return a code, and the error code of OAuth."""
        code = _CODES_OF_GRANT.get(grant, {}).get(refused.reason, _CODES.get(refused.reason, 20063))
        text = f"{refused.code} (test server)"
        return {"code": code, "error": refused.code, "error_description": text}
