"""The endpoints of the device flow: one for the device, and a page for the user (RFC 8628)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response

from tokenmw.testing.provider_server.consent_page import error_page, form_page, message_page
from tokenmw.testing.provider_server.endpoint import Endpoint, json_response, whole_seconds

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.fault import Fault

__all__ = ["DeviceAuthorization", "DevicePage"]


class DeviceAuthorization(Endpoint):
    """`POST /oauth2/device`: a device code and a user code."""

    name: ClassVar[str] = "device"
    path: ClassVar[str] = "/oauth2/device"

    async def caller(self, request: Request) -> str:
        """Return the client id that a request names."""
        return await self.server.oauth2.caller(request)

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with the codes and where the user goes (RFC 8628 §3.2)."""
        asked = await self.server.oauth2.authenticated(request)
        if isinstance(asked, Response):
            return asked
        users, scope = self.server.users, asked.form.get("scope", "")
        if users.scopes is not None and not set(scope.split()) <= users.scopes:
            return json_response({"error": "invalid_scope"}, 400)
        return json_response(fault.change(self.begin(request, asked.client, scope)))

    def begin(self, request: Request, client: str, scope: str) -> dict[str, Any]:
        """Return the fields of an answer with new codes."""
        base, users = self.server.oauth2_metadata.base(request), self.server.users
        code = users.devices.issue(client, scope=scope, issuer=base)
        page = f"{base}{DevicePage.path}"
        return {
            "device_code": code.value,
            "user_code": code.user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?{urlencode({'user_code': code.user_code})}",
            "expires_in": whole_seconds(users.device_life),
            "interval": code.interval,
        }


class DevicePage(Endpoint):
    """`GET /oauth2/device/verify`: a page with a form, which posts to the same URL."""

    name = "device_page"
    path = "/oauth2/device/verify"
    methods = ("GET", "POST")

    async def answer(self, request: Request, fault: Fault) -> Response:  # noqa: ARG002  the signature is the base's
        """Answer with the form, or take the user's decision."""
        form = dict(parse_qsl((await request.body()).decode("latin-1")))
        typed = form.get("user_code", request.query_params.get("user_code", ""))
        users = self.server.users
        try:
            code = users.devices.with_user_code(typed) if typed else None
        except KeyError:
            return error_page("The code is not known, or has expired.")
        if request.method == "GET" or code is None:
            client, scope = (code.client, code.scope) if code is not None else ("", "")
            return form_page(client=client, scope=scope, user=users.auto or "", user_code=typed)
        if form.get("decision") == "allow" and form.get("user"):
            users.approve_device(code.user_code, form["user"])
            return message_page("The device is connected.")
        users.deny_device(code.user_code)
        return message_page("The device is not connected.")
