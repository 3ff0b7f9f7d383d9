"""Slack's tokens of users, with token rotation: every answer has HTTP 200, and a refused one `"ok": false`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from tokenmw.testing.provider_server.authorize import AuthorizationEndpoint
from tokenmw.testing.provider_server.endpoint import Endpoint, json_response
from tokenmw.testing.provider_server.user_grants import AUTHORIZATION_CODE, CREDENTIALS, REFRESH_TOKEN, UserCredential
from tokenmw.testing.provider_server.user_tokens import Asked, UserTokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.families import Pair, RefusedError
    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["SlackAPI", "SlackUserTokens"]

_ERRORS: Final = {
    "invalid_client": "bad_client_secret",
    "unsupported_grant_type": "invalid_grant_type",
    "redirect_uri": "bad_redirect_uri",
}


class SlackAuthorization(AuthorizationEndpoint):
    """`GET /oauth/v2/authorize`: the scopes of a user are in `user_scope`, separated by commas."""

    name = "slack_authorize"
    path = "/oauth/v2/authorize"
    more_paths = ()
    scope_field = "user_scope"
    scope_separator = ","
    pkce = "optional"
    has_iss = False
    needs_response_type = False


class SlackUserTokens(UserTokens):
    """`POST /api/oauth.v2.access`: the tokens for a code are in `authed_user`, those of a refresh at the top level."""

    name = "slack"
    authorization = SlackAuthorization
    path = "/api/oauth.v2.access"
    refusal_status = 200

    def __init__(self, server: ProviderServer, *, life: float = 43200.0) -> None:
        super().__init__(server, life=life)

    async def read(self, request: Request) -> Asked:
        """Return what a request asks for; the app's secret is in the form or in the `Authorization` header."""
        form = dict(parse_qsl((await request.body()).decode("latin-1")))
        basic = self.server.oauth2._basic(request)
        grant = form.get("grant_type", AUTHORIZATION_CODE)
        credential = UserCredential(
            grant=grant,
            value=form.get(CREDENTIALS.get(grant, ""), ""),
            client=basic[0] if basic else form.get("client_id", ""),
            redirect_uri=form.get("redirect_uri", ""),
            verifier=form.get("code_verifier", ""),
        )
        return Asked(basic[1] if basic else form.get("client_secret", ""), credential)

    def granted(self, pair: Pair, *, grant: str) -> dict[str, Any]:
        """Return the fields of an answer."""
        tokens: dict[str, Any] = {
            "access_token": pair.access_token,
            "expires_in": pair.expires_in,
            "token_type": "user",
            "scope": pair.scope.replace(" ", ","),
        }
        if pair.refresh_token:
            tokens["refresh_token"] = pair.refresh_token
        app: dict[str, Any] = {"ok": True, "app_id": "A1", "team": {"id": "T1", "name": "Team"}, "enterprise": None}
        return app | (tokens if grant == REFRESH_TOKEN else {"authed_user": {"id": pair.family.user, **tokens}})

    def refusal(self, refused: RefusedError, *, grant: str) -> dict[str, Any]:
        """Return the fields of a refusal."""
        invalid = "invalid_refresh_token" if grant == REFRESH_TOKEN else "invalid_code"
        return {"ok": False, "error": _ERRORS.get(refused.reason, invalid)}


class SlackAPI(Endpoint):
    """`/api/auth.test`: answers with the token's user, or with HTTP 200 and an error.

    Attributes:
        RATE_LIMITED: The answer after too many calls.
    """

    name = "slack_api"
    path = "/api/auth.test"
    methods = ("GET", "POST")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Accept a token that was issued here and is neither expired nor revoked."""
        value = request.headers.get("authorization", "").removeprefix("Bearer ")
        token = self.server.issued.find(value)
        if token is None or not self.server.issued.is_good(token):
            missing = "invalid_auth" if token is None else "token_revoked" if token.revoked else "token_expired"
            return json_response({"ok": False, "error": missing if value else "not_authed"})
        return json_response(fault.change({"ok": True, "user_id": token.user, "team_id": "T1"}))
