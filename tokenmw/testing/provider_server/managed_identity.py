"""The endpoints from which Azure's platforms give a managed identity its tokens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl

from tokenmw.testing.provider_server.endpoint import TokenEndpoint, json_response

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["ManagedIdentityTokens"]

Platform = Literal["imds", "app_service", "azure_arc", "azure_ml", "cloud_shell", "service_fabric"]


@dataclass(frozen=True, slots=True)
class _Rules:
    version: str | None
    header: str
    ids: tuple[str, ...]
    method: str = "GET"


_IMDS_IDS = ("client_id", "object_id", "msi_res_id", "mi_res_id")
_RULES: dict[Platform, _Rules] = {
    "imds": _Rules("2018-02-01", "metadata", _IMDS_IDS),
    "app_service": _Rules("2019-08-01", "x-identity-header", ("client_id", "object_id", "mi_res_id")),
    "azure_arc": _Rules("2020-06-01", "metadata", _IMDS_IDS),
    "azure_ml": _Rules("2017-09-01", "secret", ("clientid",)),
    "cloud_shell": _Rules(None, "metadata", (), method="POST"),
    "service_fabric": _Rules("2019-07-01-preview", "secret", ()),
}
_EVERY_ID = tuple(dict.fromkeys(name for rules in _RULES.values() for name in rules.ids))


class ManagedIdentityTokens(TokenEndpoint):
    """`/metadata/identity/oauth2/token`: numbers are sent as text, and the same token is returned again.

    A user-assigned identity, by its client, object or resource id, is one of the server's clients; an unknown one is
    refused.

    Attributes:
        platform: The platform that it answers as; None: App Service if `header` is set, else IMDS.
        header: The secret in the header of App Service, Azure ML and Service Fabric, whose answers have only
            `expires_on`; None for the others.
        key_file: The file that Azure Arc's challenge names. The test writes it.
        knows_ids: Whether Azure Arc's agent is new enough for user-assigned identities; if not, it ignores the id.
    """

    name = "managed_identity"
    path = "/metadata/identity/oauth2/token"
    methods = ("GET", "POST")

    def __init__(self, server: ProviderServer, *, life: float) -> None:
        super().__init__(server, life=life, renewal_window=life / 2)
        self.platform: Platform | None = None
        self.header: str | None = None
        self.key_file: Path | None = None
        self.knows_ids = True

    async def caller(self, request: Request) -> str:
        """Return the user-assigned identity, or "" for the system-assigned one."""
        return next((request.query_params[name] for name in _EVERY_ID if name in request.query_params), "")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token if the request has the header that a browser cannot be tricked into sending."""
        platform = self.platform or ("imds" if self.header is None else "app_service")
        rules = _RULES[platform]
        if request.method != rules.method:
            return _error("invalid_request", status=405)
        fields: Mapping[str, str] = request.query_params
        if rules.method == "POST":
            fields = dict(parse_qsl((await request.body()).decode("latin-1"), keep_blank_values=True))
        if platform == "service_fabric" and request.headers.get(rules.header) != self.header:
            return json_response({"error": {"code": "ManagedIdentityNotFound", "message": "(test server)"}}, 404)
        if request.headers.get(rules.header) != (self.header or "true") or fields.get("api-version") != rules.version:
            return _error("invalid_request")
        if not fields.get("resource"):
            return _error("invalid_request")
        if platform == "azure_arc" and not await asyncio.to_thread(self._has_read_file, request):
            return _error("unauthorized", status=401, WWW_Authenticate=f"Basic realm={self.key_file}")
        return self._granted(platform, fields, fault)

    def _has_read_file(self, request: Request) -> bool:
        scheme, _, content = request.headers.get("authorization", "").partition(" ")
        file = self.key_file
        return scheme == "Basic" and file is not None and file.is_file() and content == file.read_text("utf-8").strip()

    def _granted(self, platform: Platform, fields: Mapping[str, str], fault: Fault) -> Response:
        ids = {name: fields[name] for name in _EVERY_ID if name in fields}
        if platform == "azure_arc" and not self.knows_ids:
            ids = {}
        client = next(iter(ids.values()), "")
        known = not ids.keys() - set(_RULES[platform].ids)
        if len(ids) > 1 or not known or (ids and not self.server.knows(client, None)):
            return _error("invalid_request")
        value, life = self.grant(client, scope=fields["resource"])
        now = datetime.now(UTC)
        content = {
            "access_token": value,
            "expires_on": str(int(now.timestamp() + life)),
            "resource": fields["resource"],
            "token_type": "Bearer",
        }
        if self.header is None:
            content |= {"expires_in": str(int(life)), "not_before": str(int(now.timestamp()))}
        if platform == "azure_arc":
            content |= ids
        return json_response(fault.change(content), Date=now.strftime("%a, %d %b %Y %H:%M:%S GMT"))


def _error(code: str, *, status: int = 400, **headers: str) -> Response:
    return json_response({"error": code, "error_description": "Identity not found"}, status, **headers)
