"""Microsoft's endpoints: the login and the Bot Connector."""

from __future__ import annotations

import secrets
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from tokenmw.testing.provider_server.endpoint import Endpoint, TokenEndpoint, json_response
from tokenmw.testing.provider_server.subjects import JWT_BEARER, interaction_required

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["BotConnector", "EntraTokens"]

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONG = 7200.0  # seconds; the answer for a lifetime from this one up says when to refresh


class EntraTokens(TokenEndpoint):
    """`POST /{tenant}/oauth2/v2.0/token`, for Entra and for bots: a new token for each request.

    Attributes:
        tenants: The known tenants, in lower case; None for any except `common` and the like.
        claims: The claims that a user must prove before an app may act for the user, as JSON text; "" if the answer
            shall not name them. None: nothing more.
    """

    name = "entra"
    path = "/{tenant}/oauth2/v2.0/token"

    def __init__(self, server: ProviderServer, *, life: float) -> None:
        super().__init__(server, life=life)
        self.tenants: set[str] | None = None
        self.claims: str | None = None
        self._assertions: set[str] = set()

    async def caller(self, request: Request) -> str:
        """Return the app id."""
        return (await _form(request)).get("client_id", "")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token, or with an error and its AADSTS number."""
        form, tenant = await _form(request), str(request.path_params["tenant"]).lower()
        refusal = self._refusal(form, tenant)
        if refusal is not None:
            return refusal
        scope = f"{tenant} {form['scope']}"
        if form["grant_type"] == JWT_BEARER:
            user = self.server.subjects.user(form.get("assertion", ""))
            if user is None or form.get("requested_token_use") != "on_behalf_of":
                return _error(400, "invalid_grant", 50013)
            if self.claims is not None:
                return interaction_required(50076, self.claims)
            value, life = self.grant_for(user, form["client_id"], scope=scope)
        else:
            value, life = self.grant(form["client_id"], scope=scope)
        content: dict[str, Any] = {"token_type": "Bearer", "expires_in": life, "ext_expires_in": life}
        if life >= _LONG:
            content["refresh_in"] = int(life // 2)
        return json_response(fault.change({**content, "access_token": value}))

    def knows_tenant(self, tenant: str) -> bool:
        """Return whether a tenant exists."""
        return self.tenants is None or tenant.lower() in self.tenants

    def _refusal(self, form: dict[str, str], tenant: str) -> Response | None:
        client, scope = form.get("client_id", ""), form.get("scope", "")
        if form.get("grant_type") not in ("client_credentials", JWT_BEARER):
            return _error(400, "unsupported_grant_type", 70003)
        if tenant in {"common", "organizations", "consumers"}:
            return _error(400, "invalid_request", 50059)
        if not self.knows_tenant(tenant):
            return _error(400, "invalid_request", 90002)
        for_user = form["grant_type"] == JWT_BEARER
        if not scope or (not for_user and (len(scope.split()) != 1 or not scope.endswith("/.default"))):
            return _error(400, "invalid_scope", 1002012)
        if not self.server.knows(client, None):
            return _error(400, "unauthorized_client", 700016)
        return self._proof_refusal(client, form)

    def _proof_refusal(self, client: str, form: dict[str, str]) -> Response | None:
        assertion = form.get("client_assertion")
        if assertion is not None:
            if form.get("client_assertion_type") != _ASSERTION_TYPE or assertion in self._assertions:
                return _error(401, "invalid_client", 700027)
            self._assertions.add(assertion)
            return None
        if "client_secret" not in form:
            return _error(401, "invalid_client", 7000218)
        return None if self.server.knows(client, form["client_secret"]) else _error(401, "invalid_client", 7000215)


class BotConnector(Endpoint):
    """`POST /v3/conversations/{id}/activities`, on the host of a `serviceUrl`. Teams adds a region to the path.

    Attributes:
        activities: The received activities: app id, conversation, and activity.
    """

    name = "bot_connector"
    path = "/v3/conversations/{conversation}/activities"

    def __init__(self, server: ProviderServer) -> None:
        super().__init__(server)
        self.activities: list[tuple[str, str, dict[str, Any]]] = []

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept an activity if the token is valid and is a bot's."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        token = self.server.issued.find(value)
        if scheme != "Bearer" or token is None or not self.server.issued.is_good(token):
            return json_response({"message": "Authorization has been denied for this request."}, 401)
        if "api.botframework." not in token.scope:
            return json_response({"error": {"code": "BotNotRegistered", "message": "Not a bot's token."}}, 403)
        self.activities.append((token.client, request.path_params["conversation"], await request.json()))
        return json_response(fault.change({"id": f"1:{secrets.token_urlsafe(8)}"}), 201)


async def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode("latin-1"), keep_blank_values=True))


def _error(status: int, error: str, code: int) -> Response:
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    content = {
        "error": error,
        "error_description": (
            f"AADSTS{code}: {error} (test server). Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}"
        ),
        "error_codes": [code],
        "timestamp": at,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={code}",
    }
    return json_response(content, status)
