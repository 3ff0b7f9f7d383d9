"""The endpoints of DingTalk's API v1.0: tokens of an app, tokens for one corp, and an API that accepts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.testing.provider_server.endpoint import Endpoint, TokenEndpoint, json_fields, json_response
from tokenmw.testing.provider_server.fault import Fault

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["BAN_PAGE", "DingTalkAPI", "DingTalkCorpTokens", "DingTalkTokens", "ExtendedTokens"]

BAN_PAGE: Final = Fault(status=403, body="<html><body>Sorry, your request has been blocked.</body></html>")
"""The page that a machine gets for five minutes after too many requests."""


class ExtendedTokens(TokenEndpoint):
    """Returns the same token while it is valid, and extends it to a full lifetime each time.

    Attributes:
        BANNED: The JSON answer to a banned machine.
        BAN_PAGE: The HTML answer to a banned machine.
    """

    BANNED: Final = Fault(body={"status": 1111, "punish": "deny"})
    BAN_PAGE: Final = BAN_PAGE

    def __init__(self, server: ProviderServer, *, life: float = 7200.0) -> None:
        super().__init__(server, life=life, renewal_window=0.0)

    def grant(
        self, client: str, *, scope: str = "", resources: tuple[str, ...] = (), thumbprint: str = ""
    ) -> tuple[str, float]:
        """Return the token of a client, and its full lifetime in seconds."""
        value, _ = super().grant(client, scope=scope, resources=resources, thumbprint=thumbprint)
        token = self.server.issued.find(value)
        if token is not None:
            self.server.issued.extend(token, life=self.life)
        return value, int(self.life) if self.life > 60 else self.life


class DingTalkTokens(ExtendedTokens):
    """`POST /v1.0/oauth2/accessToken`.

    Attributes:
        RATE_LIMITED: The answer after too many calls.
    """

    name = "dingtalk"
    path = "/v1.0/oauth2/accessToken"

    RATE_LIMITED: Final = Fault(status=400, body={"code": "qps.exceed.limit", "message": "limit", "requestid": "1"})

    async def caller(self, request: Request) -> str:
        """Return the app that a request names."""
        return str((await json_fields(request)).get("appKey", ""))

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token, or with a code, a message and HTTP 400."""
        asked = await json_fields(request)
        if not asked:
            return _refusal("Missingbody", "body is mandatory for this action")
        app, secret = asked.get("appKey"), asked.get("appSecret")
        if not isinstance(app, str) or not isinstance(secret, str) or not self.server.knows(app, secret):
            return _refusal("invalidClientIdOrSecret", "the client id or the secret is not valid")
        value, life = self.grant(app)
        return json_response(fault.change({"accessToken": value, "expireIn": life}))


class DingTalkCorpTokens(ExtendedTokens):
    """`POST /v1.0/oauth2/{corp}/token`.

    Attributes:
        corps: The known corps; None for any.
    """

    name = "dingtalk_corp"
    path = "/v1.0/oauth2/{corp}/token"

    def __init__(self, server: ProviderServer, *, life: float = 7200.0) -> None:
        super().__init__(server, life=life)
        self.corps: set[str] | None = None

    async def caller(self, request: Request) -> str:
        """Return the app that a request names."""
        return str((await json_fields(request)).get("client_id", ""))

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token; an unknown corp is HTTP 500, as on the platform."""
        asked, corp = await json_fields(request), str(request.path_params["corp"])
        if self.corps is not None and corp not in self.corps:
            return _refusal("unknownError", "unknown error", 500)
        app, secret = asked.get("client_id"), asked.get("client_secret")
        if asked.get("grant_type") != "client_credentials":
            return _refusal("invalid.grant.type", "the grant type is not valid")
        if not isinstance(app, str) or not isinstance(secret, str) or not self.server.knows(app, secret):
            return _refusal("invalid.client", "the client is not valid")
        value, life = self.grant(app, scope=corp)
        return json_response(fault.change({"access_token": value, "expires_in": life}))


class DingTalkAPI(Endpoint):
    """`/v1.0/…` with `x-acs-dingtalk-access-token`: answers with the token's client, or with an error code.

    Attributes:
        refusal_status: The HTTP status for a rejected token; the platform has used 400 and 401.
        NO_PERMISSION: The answer for an app that lacks a permission; a new token would not help.
    """

    name = "dingtalk_api"
    path = "/v1.0/{path:path}"
    methods = ("GET", "POST", "PUT", "DELETE")

    NO_PERMISSION: Final = Fault(
        status=403, body={"code": "Forbidden.AccessDenied.AccessTokenPermissionDenied", "message": "denied"}
    )

    def __init__(self, server: ProviderServer) -> None:
        super().__init__(server)
        self.refusal_status = 400

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept a token that was issued here and is neither expired nor revoked."""
        value = request.headers.get("x-acs-dingtalk-access-token", "")
        if not value:
            return _refusal("AuthenticationFailed.MissingParameter", "x-acs-dingtalk-access-token is mandatory")
        token = self.server.issued.find(value)
        if token is None or not self.server.issued.is_good(token):
            return _refusal("InvalidAuthentication", "the access token is not valid", self.refusal_status)
        content = {"client": token.client, "corp": token.scope, "path": request.url.path}
        if token.user:
            content["user"] = token.user
        return json_response(fault.change({**content, "received": len(await request.body())}))


def _refusal(code: str, text: str, status: int = 400) -> Response:
    return json_response({"code": code, "message": text, "requestid": "5F0F6B5C"}, status)
