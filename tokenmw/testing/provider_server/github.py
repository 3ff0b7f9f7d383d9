"""GitHub's tokens of users, by code and by device: errors have HTTP 200, and the format is that of `Accept`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response

from tokenmw.testing.provider_server.authorize import AuthorizationEndpoint
from tokenmw.testing.provider_server.device import DeviceAuthorization
from tokenmw.testing.provider_server.endpoint import json_response
from tokenmw.testing.provider_server.user_grants import (
    AUTHORIZATION_CODE,
    CREDENTIALS,
    DEVICE_CODE,
    REFRESH_TOKEN,
    UserCredential,
)
from tokenmw.testing.provider_server.user_tokens import Asked, UserTokens

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.families import Pair, RefusedError
    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["GitHubUserTokens"]

_ERRORS: Final = {
    "invalid_client": "incorrect_client_credentials",
    "unsupported_grant_type": "unsupported_grant_type",
    "redirect_uri": "redirect_uri_mismatch",
}
_UNKNOWN: Final = {
    AUTHORIZATION_CODE: "bad_verification_code",
    REFRESH_TOKEN: "bad_refresh_token",
    DEVICE_CODE: "incorrect_device_code",
}
_OF_DEVICES: Final = frozenset({"authorization_pending", "slow_down", "expired_token", "access_denied"})


class GitHubDevice(DeviceAuthorization):
    """`POST /login/device/code`: a device code and a user code, for an app without a secret."""

    name = "github_device"
    path = "/login/device/code"

    async def caller(self, request: Request) -> str:
        """Return the app that a request names, in its form or in its URL."""
        return (await _fields(request)).get("client_id", "")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with the codes, in the format that the request asks for."""
        fields = await _fields(request)
        client = fields.get("client_id", "")
        if not self.server.knows(client, None):
            return _respond(request, {"error": "incorrect_client_credentials"})
        content = self.begin(request, client, fields.get("scope", ""))
        del content["verification_uri_complete"]
        return _respond(request, fault.change(content))


class GitHubAuthorization(AuthorizationEndpoint):
    """`GET /login/oauth/authorize`."""

    name = "github_authorize"
    path = "/login/oauth/authorize"
    more_paths = ()
    pkce = "optional"
    has_iss = False
    needs_response_type = False


class GitHubUserTokens(UserTokens):
    """`POST /login/oauth/access_token`; a refresh revokes the old access token.

    Attributes:
        device: `POST /login/device/code`, for programs without a browser.
    """

    name = "github"
    authorization = GitHubAuthorization
    path = "/login/oauth/access_token"
    issuer = "ghu"
    refusal_status = 200
    revokes_old_tokens = True

    def __init__(self, server: ProviderServer, *, life: float = 28800.0) -> None:
        super().__init__(server, life=life)
        self.device = GitHubDevice(server)

    async def read(self, request: Request) -> Asked:
        """Return what a request asks for, in its form or in its URL."""
        form = await _fields(request)
        grant = form.get("grant_type", AUTHORIZATION_CODE)
        credential = UserCredential(
            grant=grant,
            value=form.get(CREDENTIALS.get(grant, ""), ""),
            client=form.get("client_id", ""),
            redirect_uri=form.get("redirect_uri"),
            verifier=form.get("code_verifier", ""),
        )
        # A device does not keep a secret.
        return Asked(None if grant == DEVICE_CODE else form.get("client_secret", ""), credential)

    def granted(self, pair: Pair, *, grant: str) -> dict[str, Any]:  # noqa: ARG002  the signature is the base's
        """Return the fields of an answer."""
        content: dict[str, Any] = {
            "access_token": pair.access_token,
            "expires_in": pair.expires_in,
            "scope": pair.scope.replace(" ", ","),
            "token_type": "bearer",
        }
        if pair.refresh_token:
            content["refresh_token"] = pair.refresh_token
            content["refresh_token_expires_in"] = int(self.server.users.refresh_life)
        return content

    def refusal(self, refused: RefusedError, *, grant: str) -> dict[str, Any]:
        """Return the fields of a refusal."""
        # The reason of a device that waits is the error code itself.
        error = _ERRORS.get(
            refused.reason, refused.reason if refused.reason in _OF_DEVICES else _UNKNOWN.get(grant, "")
        )
        return {"error": error, "error_description": f"{refused.code} (test server)", "error_uri": f"/#{error}"}

    def respond(self, request: Request, content: dict[str, Any], *, status: int = 200) -> Response:
        """Return JSON, or a form for a client that does not ask for JSON."""
        return _respond(request, content, status=status)


async def _fields(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.url.query)) | dict(parse_qsl((await request.body()).decode("latin-1")))


def _respond(request: Request, content: dict[str, Any], *, status: int = 200) -> Response:
    if "json" in request.headers.get("accept", ""):
        return json_response(content, status)
    return Response(urlencode(content), status, media_type="application/x-www-form-urlencoded")
