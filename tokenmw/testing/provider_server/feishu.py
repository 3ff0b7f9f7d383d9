"""The endpoints of Feishu and Lark: tokens of self-built apps, and an API that accepts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from tokenmw.testing.provider_server.endpoint import Endpoint, TokenEndpoint, json_fields, json_response
from tokenmw.testing.provider_server.fault import Fault

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["FeishuAPI", "FeishuAppTokens", "FeishuTenantTokens"]


class FeishuTenantTokens(TokenEndpoint):
    """`POST /open-apis/auth/v3/tenant_access_token/internal`: the same token until 30 minutes before it expires.

    Attributes:
        RATE_LIMITED: The gateway's answer after too many calls; it asks to wait for 3 s.
        DISABLED: The answer for a disabled app.
    """

    name = "feishu_tenant"
    path = "/open-apis/auth/v3/tenant_access_token/internal"
    more_paths = ("/open-apis/auth/v3/tenant_access_token/internal/",)  # go-lark posts there
    issuer = "t"  # the platform's prefix of these tokens
    fields: ClassVar[tuple[str, ...]] = ("tenant_access_token",)

    RATE_LIMITED: Final = Fault(
        status=429,
        headers={"x-ogw-ratelimit-limit": "100", "x-ogw-ratelimit-reset": "3"},
        body={"code": 99991400, "msg": "request trigger frequency limit"},
    )
    DISABLED: Final = Fault(body={"code": 99991662, "msg": "app is disabled or not installed"})

    def __init__(self, server: ProviderServer, *, life: float = 7200.0, renewal_window: float | None = 1800.0) -> None:
        super().__init__(server, life=life, renewal_window=renewal_window)

    async def caller(self, request: Request) -> str:
        """Return the app that a request names."""
        return str((await json_fields(request, named=False)).get("app_id", ""))

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token at the top level; the platform's other answers have `data` there."""
        asked = await json_fields(request, named=False)
        app, secret = asked.get("app_id"), asked.get("app_secret")
        if not isinstance(app, str) or not isinstance(secret, str) or not app:
            return json_response({"code": 10003, "msg": "invalid param", "data": {}})
        if not self.server.knows(app, secret):
            return json_response({"code": 10014, "msg": "app secret invalid"})
        value, life = self.grant(app)
        return json_response(
            fault.change({"code": 0, "msg": "ok", **dict.fromkeys(self.fields, value), "expire": life})
        )


class FeishuAppTokens(FeishuTenantTokens):
    """`POST /open-apis/auth/v3/app_access_token/internal`: the same token in both fields."""

    name = "feishu_app"
    path = "/open-apis/auth/v3/app_access_token/internal"
    more_paths = ("/open-apis/auth/v3/app_access_token/internal/",)
    fields = ("app_access_token", "tenant_access_token")


class FeishuAPI(Endpoint):
    """`/open-apis/…`: answers with the token's client, or with an error code.

    Attributes:
        refusal_status: The HTTP status for a rejected token; the platform has used 200, 400 and 401.
        NO_PERMISSION: The answer for an app that lacks a scope; a new token would not help.
    """

    name = "feishu_api"
    path = "/open-apis/{path:path}"
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")

    NO_PERMISSION: Final = Fault(status=400, body={"code": 99991672, "msg": "Access denied: scope is required"})

    def __init__(self, server: ProviderServer) -> None:
        super().__init__(server)
        self.refusal_status = 400

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept a token that was issued here and is neither expired nor revoked."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not value:
            return self._refusal(99991661, "Missing access token for authorization")
        if not value.startswith(("t-", "u-")):
            return self._refusal(99991671, "Invalid access token: it must start with t- or u-")
        token = self.server.issued.find(value)
        if token is None or not self.server.issued.is_good(token):
            code = 99991663 if value.startswith("t-") else 99991668
            return self._refusal(code, "Invalid access token for authorization")
        data = {"client": token.client, "path": request.url.path, "received": len(await request.body())}
        if token.user:
            data["user"] = token.user
        return json_response(fault.change({"code": 0, "msg": "success", "data": data}))

    def _refusal(self, code: int, text: str) -> Response:
        return json_response({"code": code, "msg": text}, self.refusal_status)
