"""The endpoints of WeCom: a token for each secret of a corp, and an API that accepts them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from tokenmw.testing.provider_server.endpoint import Endpoint, TokenEndpoint, json_response
from tokenmw.testing.provider_server.fault import Fault

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["WeComAPI", "WeComTokens"]


class WeComTokens(TokenEndpoint):
    """`GET /cgi-bin/gettoken`: the same token until it expires, with its remaining lifetime; errors with HTTP 200.

    Attributes:
        secrets: Additional secrets by corp: each application of a corp has its own.
        BUSY: The answer of a busy system.
        RATE_LIMITED: The answer after too many calls.
        ADDRESS_REFUSED: The answer to an IP address that the application does not trust.
    """

    name = "wecom"
    path = "/cgi-bin/gettoken"
    methods = ("GET",)

    BUSY: Final = Fault(body={"errcode": -1, "errmsg": "system busy"})
    RATE_LIMITED: Final = Fault(body={"errcode": 45009, "errmsg": "api freq out of limit"})
    ADDRESS_REFUSED: Final = Fault(body={"errcode": 60020, "errmsg": "not allow to access from your ip"})

    def __init__(self, server: ProviderServer, *, life: float = 7200.0, renewal_window: float | None = 0.0) -> None:
        super().__init__(server, life=life, renewal_window=renewal_window)
        self.secrets: dict[str, set[str]] = {}

    async def caller(self, request: Request) -> str:
        """Return the corp that a request names."""
        return request.query_params.get("corpid", "")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token, or with an `errcode`."""
        corp, secret = request.query_params.get("corpid", ""), request.query_params.get("corpsecret", "")
        if not corp:
            return _refusal(41002, "corpid missing")
        if not secret:
            return _refusal(41004, "corpsecret missing")
        if not self.server.knows(corp, None):
            return _refusal(40013, "invalid corpid")
        if not self.server.knows(corp, secret) and secret not in self.secrets.get(corp, ()):
            return _refusal(40001, "invalid credential")
        application = hashlib.sha256(secret.encode()).hexdigest()[:12]
        value, life = self.grant(corp, scope=application)
        granted = {"errcode": 0, "errmsg": "ok", "access_token": value, "expires_in": life}
        return json_response(fault.change(granted))


class WeComAPI(Endpoint):
    """`/cgi-bin/…?access_token=…`: answers with the token's client, or with an `errcode`.

    Attributes:
        WRONG_APPLICATION: The answer to a token of the corp's other application; a new token would not help.
        NO_PERMISSION: The answer for an application that lacks a permission.
    """

    name = "wecom_api"
    path = "/cgi-bin/{path:path}"
    methods = ("GET", "POST")

    WRONG_APPLICATION: Final = Fault(
        body={"errcode": 301002, "errmsg": "not allow operate another agent with this accesstoken"}
    )
    NO_PERMISSION: Final = Fault(body={"errcode": 48002, "errmsg": "api forbidden"})

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept a token that was issued here and is neither expired nor revoked."""
        value = request.query_params.get("access_token", "")
        if not value:
            return _refusal(41001, "access_token missing")
        token = self.server.issued.find(value)
        if token is None or token.revoked:
            return _refusal(40014, "invalid access_token")
        if not self.server.issued.is_good(token):
            return _refusal(42001, "access_token expired")
        content = {
            "client": token.client,
            "application": token.scope,
            "path": request.url.path,
            "received": len(await request.body()),
        }
        return json_response(fault.change({"errcode": 0, "errmsg": "ok", **content}))


def _refusal(code: int, text: str) -> Response:
    return json_response({"errcode": code, "errmsg": text})
