"""The endpoints of DingTalk's older API: tokens by a GET request, and errors with HTTP 200."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.testing.provider_server.dingtalk import ExtendedTokens
from tokenmw.testing.provider_server.endpoint import Endpoint, json_response
from tokenmw.testing.provider_server.fault import Fault

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["DingTalkLegacyAPI", "DingTalkLegacyTokens"]


class DingTalkLegacyTokens(ExtendedTokens):
    """`GET /gettoken`.

    Attributes:
        BUSY: The answer of a busy system.
        RATE_LIMITED: The answer after too many calls.
    """

    name = "dingtalk_legacy"
    path = "/gettoken"
    methods = ("GET",)

    BUSY: Final = Fault(body={"errcode": -1, "errmsg": "system busy"})
    RATE_LIMITED: Final = Fault(body={"errcode": 90002, "errmsg": "too many calls of this API"})

    async def caller(self, request: Request) -> str:
        """Return the app that a request names."""
        return request.query_params.get("appkey", "")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token, or with an `errcode`."""
        app, secret = request.query_params.get("appkey", ""), request.query_params.get("appsecret", "")
        if not app or not secret:
            return json_response({"errcode": 40035, "errmsg": "a parameter is missing"})
        if not self.server.knows(app, secret):
            return json_response({"errcode": 40096, "errmsg": "the appkey or the appsecret is not valid"})
        value, life = self.grant(app)
        granted = {"errcode": 0, "errmsg": "ok", "access_token": value, "expires_in": life}
        return json_response(fault.change(granted))


class DingTalkLegacyAPI(Endpoint):
    """`/topapi/…?access_token=…`: answers with the token's client, or with an `errcode`.

    Attributes:
        NO_PERMISSION: The answer for an app that lacks a permission; a new token would not help.
    """

    name = "dingtalk_legacy_api"
    path = "/topapi/{path:path}"
    methods = ("GET", "POST")

    NO_PERMISSION: Final = Fault(
        body={"errcode": 88, "errmsg": "ding talk error", "sub_code": "60011", "sub_msg": "no permission"}
    )

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept a token that was issued here and is neither expired nor revoked."""
        value = request.query_params.get("access_token", "")
        if not value:
            return json_response({"errcode": 40000, "errmsg": "access_token is blank"})
        token = self.server.issued.find(value)
        if token is None or not self.server.issued.is_good(token):
            sub = "42001" if token is not None and not token.revoked else "40014"
            return json_response({"errcode": 88, "errmsg": "ding talk error", "sub_code": sub, "sub_msg": "token"})
        content = {"client": token.client, "path": request.url.path, "received": len(await request.body())}
        return json_response(fault.change({"errcode": 0, "errmsg": "ok", **content}))
