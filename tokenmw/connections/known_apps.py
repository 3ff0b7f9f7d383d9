"""Apps at well-known platforms: what each one does otherwise than OAuth 2.0, in one table.

>>> google(client_id="crm", client_secret="…", scope="https://www.googleapis.com/auth/calendar.readonly")
<OAuthApp crm>

Each function takes the options of `OAuthApp`, and those that are given win over the table. `params` are added to its
own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tokenmw.connections.app import OAuthApp
from tokenmw.connections.dialect import STANDARD, Dialect
from tokenmw.connections.options import checked_params
from tokenmw.errors import ConfigurationError
from tokenmw.options import credential_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "KNOWN_APPS",
    "KnownApp",
    "atlassian",
    "dingtalk",
    "feishu",
    "github",
    "google",
    "lark",
    "microsoft",
    "salesforce",
    "slack",
    "zoom",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownApp:
    """A row of the table.

    Attributes:
        urls: The issuer or the endpoints, as options of `OAuthApp`. A name in braces stands for an option of the
            function, such as the tenant.
        params: Parameters of the authorization request.
        needs: Scopes; without one of them the platform gives no refresh token.
        rotates: Whether a refresh gives a new refresh token, and the old one no longer works.
        dialect: What differs in fields and codes.
        options: More options of `OAuthApp`.
    """

    urls: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    needs: tuple[str, ...] = ()
    rotates: bool
    dialect: Dialect = STANDARD
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


# The codes of a refresh are those of the vendor's own clients: larksuite/cli, internal/errclass/codemeta.go, and
# larksuite/openclaw-lark, src/core/auth-errors.ts. Beside most stands the standard's word, such as `invalid_grant`.
_FEISHU: Final = Dialect(
    error_code="code",
    # Of another client, invalid, expired, revoked, used before.
    grant_refused=frozenset({"20024", "20026", "20037", "20064", "20073"}),
    client_refused=frozenset({"20002"}),
    transient=frozenset({"20050", "20072"}),
    rejected_field="code",
    rejected=frozenset({"99991661", "99991663", "99991664", "99991668", "99991671", "99991677"}),
    rejected_statuses=frozenset({200, 400, 401}),
)
_BY_POST: Final = {"auth_method": "client_secret_post"}
_BY_JSON: Final = {**_BY_POST, "json": True}

KNOWN_APPS: Final[Mapping[str, KnownApp]] = {
    # https://developers.google.com/identity/protocols/oauth2/web-server
    "google": KnownApp(
        urls={"issuer": "https://accounts.google.com"},
        params={"access_type": "offline", "prompt": "consent"},
        rotates=False,
        dialect=Dialect(revoke_client=False),
    ),
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow
    "microsoft": KnownApp(
        urls={
            "authorize_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
            "token_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
            "device_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
        },
        needs=("offline_access",),
        rotates=False,
        dialect=Dialect(openid_issuer="https://login.microsoftonline.com/{tid}/v2.0"),
        options=_BY_POST,
    ),
    # https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
    "github": KnownApp(
        urls={
            "authorize_url": "https://github.com/login/oauth/authorize",
            "token_url": "https://github.com/login/oauth/access_token",
            "device_url": "https://github.com/login/device/code",
        },
        rotates=True,
        dialect=Dialect(
            # Sent with HTTP 200.
            grant_refused=frozenset({"bad_refresh_token", "bad_verification_code"}),
            client_refused=frozenset({"incorrect_client_credentials"}),
            answer_separator=",",
        ),
        options=_BY_POST,
    ),
    # https://docs.slack.dev/authentication/installing-with-oauth and …/using-token-rotation: user tokens
    "slack": KnownApp(
        urls={
            "authorize_url": "https://slack.com/oauth/v2/authorize",
            "token_url": "https://slack.com/api/oauth.v2.access",
        },
        rotates=True,
        dialect=Dialect(
            inside="authed_user",
            scope_parameter="user_scope",
            # Sent with HTTP 200 beside `"ok": false`.
            grant_refused=frozenset(
                {"invalid_refresh_token", "token_already_exchanged", "authorization_not_found", "invalid_code"}
            ),
            client_refused=frozenset({"invalid_client_id", "bad_client_secret"}),
            transient=frozenset({"internal_error", "fatal_error", "ratelimited", "service_unavailable"}),
            answer_separator=",",
            rejected_field="error",
            rejected=frozenset({"invalid_auth", "token_expired", "token_revoked"}),
        ),
        options={"scope_separator": ","},
    ),
    # https://open.feishu.cn/document/authentication-management/access-token/get-user-access-token
    "feishu": KnownApp(
        urls={
            "authorize_url": "https://accounts.feishu.cn/open-apis/authen/v1/authorize",
            "token_url": "https://open.feishu.cn/open-apis/authen/v2/oauth/token",
        },
        needs=("offline_access",),
        rotates=True,
        dialect=_FEISHU,
        options=_BY_JSON,
    ),
    "lark": KnownApp(
        urls={
            "authorize_url": "https://accounts.larksuite.com/open-apis/authen/v1/authorize",
            "token_url": "https://open.larksuite.com/open-apis/authen/v2/oauth/token",
        },
        needs=("offline_access",),
        rotates=True,
        dialect=_FEISHU,
        options=_BY_JSON,
    ),
    # https://open.dingtalk.com/document/orgapp/obtain-user-token
    "dingtalk": KnownApp(
        urls={
            "authorize_url": "https://login.dingtalk.com/oauth2/auth",
            "token_url": "https://api.dingtalk.com/v1.0/oauth2/userAccessToken",
        },
        params={"prompt": "consent"},
        rotates=True,
        dialect=Dialect(
            request_names={
                "client_id": "clientId",
                "client_secret": "clientSecret",
                "grant_type": "grantType",
                "refresh_token": "refreshToken",
            },
            answer_names={"accessToken": "access_token", "refreshToken": "refresh_token", "expireIn": "expires_in"},
            error_code="code",
            # A refresh is refused by these, and by that of a code: the vendor's own client,
            # DingTalk-Real-AI/dingtalk-workspace-cli, ClassifyRefreshFailure in internal/auth.
            grant_refused=frozenset({"invalid_refresh_token", "refresh_token_expired", "refresh_token_revoked"}),
            grant_refused_prefixes=("invalidParameter.authCode", "invalidParameter.refreshToken"),
            client_refused=frozenset({"invalidClientIdOrSecret"}),
            transient=frozenset({"qps.exceed.limit"}),
            code_parameter="authCode",
            # Its scope `openid` gives no ID token, and its endpoints do not know PKCE.
            has_id_token=False,
            pkce=False,
            header="x-acs-dingtalk-access-token",
            rejected_field="code",
            rejected=frozenset({"invalidauthentication"}),
            rejected_statuses=frozenset({400, 401}),
        ),
        options={**_BY_JSON, "scope": "openid", "default_life": 7200.0},
    ),
    # https://developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens
    "atlassian": KnownApp(
        urls={
            "authorize_url": "https://auth.atlassian.com/authorize",
            "token_url": "https://auth.atlassian.com/oauth/token",
        },
        params={"audience": "api.atlassian.com", "prompt": "consent"},
        needs=("offline_access",),
        rotates=True,
        options=_BY_JSON,
    ),
    # https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_web_server_flow.htm
    "salesforce": KnownApp(
        urls={
            "authorize_url": "https://{host}/services/oauth2/authorize",
            "token_url": "https://{host}/services/oauth2/token",
            "revoke_url": "https://{host}/services/oauth2/revoke",
        },
        needs=("refresh_token", "offline_access"),
        rotates=False,
        dialect=Dialect(revoke_client=False),
        # Answers do not say how long a token lives: as long as the org's sessions, by default two hours.
        options={**_BY_POST, "default_life": 7200.0},
    ),
    # https://developers.zoom.us/docs/integrations/oauth/
    "zoom": KnownApp(
        urls={
            "authorize_url": "https://zoom.us/oauth/authorize",
            "token_url": "https://zoom.us/oauth/token",
            "revoke_url": "https://zoom.us/oauth/revoke",
        },
        rotates=True,
        # The reason stands beside `invalid_grant`, and sometimes beside `invalid_request`.
        dialect=Dialect(error_code="reason", grant_refused=frozenset({"Invalid Token!"})),
    ),
}
"""What differs, by the platforms' own documents."""


_EXAMPLES: Final = {"tenant": "organizations", "host": "example.my.salesforce.com"}


def _known(platform: str, /, *, params: Mapping[str, str] | None = None, **options: Any) -> OAuthApp:
    """Make an app at a platform of the table.

    Raises:
        ConfigurationError: An option cannot work, or the platform gives no refresh token with this scope.
    """
    row = KNOWN_APPS[platform]
    checked_params(params, option=f"{platform}(params=…)", of="authorization")
    given: dict[str, Any] = {"dialect": row.dialect, **row.urls, **row.options, **options}
    scope = given.get("scope", "")
    if row.needs and isinstance(scope, str) and not set(row.needs) & set(scope.split()):
        raise ConfigurationError(
            f"{platform}(scope=…) lacks {row.needs[0]}, without which the platform gives no refresh token: add it."
        )
    return OAuthApp(params={**row.params, **(params or {})}, **given)


def _of_host(platform: str, /, *, name: str, value: str, **options: Any) -> OAuthApp:
    text = credential_text(value, option=f"{platform}({name}=…)")
    if not text.replace(".", "").replace("-", "").isalnum():
        raise ConfigurationError(
            f"{platform}({name}=…) must have letters, digits, dots and hyphens only, without https:// and a path, "
            f'such as "{_EXAMPLES[name]}".'
        )
    urls = {option: url.replace(f"{{{name}}}", text) for option, url in KNOWN_APPS[platform].urls.items()}
    merged: dict[str, Any] = {**urls, **options}
    return _known(platform, **merged)


google = partial(_known, "google")
"""Google. Without `prompt=consent` it gives a refresh token only at a user's first consent."""
github = partial(_known, "github")
"""GitHub: user tokens of a GitHub App, and of OAuth Apps, which do not expire."""
slack = partial(_known, "slack")
"""Slack: user tokens, by `user_scope`. They expire only if the app has token rotation."""
feishu = partial(_known, "feishu")
"""Feishu: `user_access_token`."""
lark = partial(_known, "lark")
"""Lark, Feishu outside of China."""
dingtalk = partial(_known, "dingtalk")
"""DingTalk: `userAccessToken`."""
atlassian = partial(_known, "atlassian")
"""Atlassian: OAuth 2.0 (3LO)."""
zoom = partial(_known, "zoom")
"""Zoom: user-managed OAuth apps."""


def microsoft(*, tenant: str = "organizations", **options: Any) -> OAuthApp:
    """Make an app at Microsoft Entra: of a tenant, or `organizations`, `consumers` or `common`."""
    return _of_host("microsoft", name="tenant", value=tenant, **options)


def salesforce(*, host: str = "login.salesforce.com", **options: Any) -> OAuthApp:
    """Make an app at Salesforce; `host` is `test.salesforce.com` for sandboxes, or that of the org."""
    return _of_host("salesforce", name="host", value=host, **options)
