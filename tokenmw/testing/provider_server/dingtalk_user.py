"""DingTalk's tokens of users: JSON with the platform's own names, for codes and refresh tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenmw.testing.provider_server.authorize import AuthorizationEndpoint
from tokenmw.testing.provider_server.endpoint import json_fields
from tokenmw.testing.provider_server.user_grants import UserCredential
from tokenmw.testing.provider_server.user_tokens import Asked, UserTokens

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.families import Pair, RefusedError
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["DingTalkUserTokens"]

_FIELDS: Final = {"authorization_code": "code", "refresh_token": "refreshToken"}


class DingTalkAuthorization(AuthorizationEndpoint):
    """`GET /oauth2/auth`: the redirect has the code as `authCode`."""

    name = "dingtalk_authorize"
    path = "/oauth2/auth"
    more_paths = ()
    code_field = "authCode"
    pkce = "none"
    has_iss = False


class DingTalkUserTokens(UserTokens):
    """`POST /v1.0/oauth2/userAccessToken`."""

    name = "dingtalk_user"
    authorization = DingTalkAuthorization
    path = "/v1.0/oauth2/userAccessToken"

    def __init__(self, server: ProviderServer, *, life: float = 7200.0) -> None:
        super().__init__(server, life=life)

    async def read(self, request: Request) -> Asked:
        """Return what a request asks for."""
        fields = await json_fields(request)
        grant = str(fields.get("grantType", ""))
        value, client = str(fields.get(_FIELDS.get(grant, ""), "")), str(fields.get("clientId", ""))
        return Asked(str(fields.get("clientSecret", "")), UserCredential(grant=grant, value=value, client=client))

    def granted(self, pair: Pair, *, grant: str) -> dict[str, Any]:  # noqa: ARG002  the signature is the base's
        """Return the fields of an answer."""
        content: dict[str, Any] = {"accessToken": pair.access_token, "expireIn": pair.expires_in, "corpId": "corp"}
        return content | ({"refreshToken": pair.refresh_token} if pair.refresh_token else {})

    def refusal(self, refused: RefusedError, *, grant: str) -> dict[str, Any]:  # noqa: ARG002  it has one code for both
        """Return a code and a message."""
        code = {
            "invalid_client": "invalidClientIdOrSecret",
            "unsupported_grant_type": "invalidParameter.grantType",
            "missing": "MissingParameter",
        }.get(refused.reason, "invalidParameter.authCode.notFound")
        return {"code": code, "message": f"{refused.code} (test server)", "requestid": "5F0F6B5C"}
