"""The endpoints of Feishu's store apps: a ticket gives an app token, and that gives a tenant token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.testing.provider_server.endpoint import Endpoint, json_fields, json_response
from tokenmw.testing.provider_server.feishu import FeishuTenantTokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["FeishuStoreAppTokens", "FeishuStoreTenantTokens", "FeishuTicketRequests"]


class FeishuTicketRequests(Endpoint):
    """`POST /open-apis/auth/v3/app_ticket/resend`: confirms; the platform sends the ticket itself as an event.

    Attributes:
        tickets: The valid ticket of each app. A test sets it, and delivers it to the program as an event.
    """

    name = "feishu_ticket"
    path = "/open-apis/auth/v3/app_ticket/resend"
    more_paths = ("/open-apis/auth/v3/app_ticket/resend/",)

    def __init__(self, server: ProviderServer) -> None:
        super().__init__(server)
        self.tickets: dict[str, str] = {}

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Confirm, if the secret is the app's."""
        asked = await json_fields(request, named=False)
        if not self.server.knows(str(asked.get("app_id", "")), str(asked.get("app_secret", ""))):
            return json_response({"code": 10014, "msg": "app secret invalid"})
        return json_response(fault.change({"code": 0, "msg": "ok"}))


class FeishuStoreAppTokens(FeishuTenantTokens):
    """`POST /open-apis/auth/v3/app_access_token`."""

    name = "feishu_store_app"
    path = "/open-apis/auth/v3/app_access_token"
    more_paths = ("/open-apis/auth/v3/app_access_token/",)
    issuer = "a"

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with an app token for a ticket."""
        asked = await json_fields(request, named=False)
        app = str(asked.get("app_id", ""))
        if not self.server.knows(app, str(asked.get("app_secret", ""))):
            return json_response({"code": 10014, "msg": "app secret invalid"})
        ticket = asked.get("app_ticket")
        if not ticket or ticket != self.server.feishu_ticket.tickets.get(app):
            return json_response({"code": 10012, "msg": "app_ticket invalid"})
        value, life = self.grant(app)
        return json_response(fault.change({"code": 0, "msg": "ok", "app_access_token": value, "expire": life}))


class FeishuStoreTenantTokens(FeishuTenantTokens):
    """`POST /open-apis/auth/v3/tenant_access_token`."""

    name = "feishu_store_tenant"
    path = "/open-apis/auth/v3/tenant_access_token"
    more_paths = ("/open-apis/auth/v3/tenant_access_token/",)

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a tenant token for an app token."""
        asked = await json_fields(request, named=False)
        app = self.server.issued.find(str(asked.get("app_access_token", "")))
        if app is None or app.endpoint != "a" or not self.server.issued.is_good(app):
            return json_response({"code": 99991664, "msg": "app access token invalid"})
        tenant = asked.get("tenant_key")
        if not isinstance(tenant, str) or not tenant:
            return json_response({"code": 10003, "msg": "invalid param"}, 400)
        value, life = self.grant(app.client, scope=tenant)
        return json_response(fault.change({"code": 0, "msg": "ok", "tenant_access_token": value, "expire": life}))
