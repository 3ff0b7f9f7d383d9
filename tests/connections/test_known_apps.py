"""Each platform of the table: what is sent, and how the answers of its documents are read."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.connections.over_http import http_over
from tokenmw.connections import known_apps
from tokenmw.connections.known_apps import KNOWN_APPS
from tokenmw.connections.pair import GrantRefused
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.testing import make_token

if TYPE_CHECKING:
    from tokenmw.connections.app import OAuthApp

CLIENT = {"client_id": "crm", "client_secret": "s3cret-of-crm"}
PAIR = {"access_token": "a-1", "refresh_token": "r-2", "expires_in": 3600, "token_type": "Bearer"}


def app_of(platform: str, **options: Any) -> OAuthApp:
    """Make an app with the scope that the platform needs."""
    scope = {} if platform == "dingtalk" else {"scope": " ".join(["one", "two", *KNOWN_APPS[platform].needs[:1]])}
    app: OAuthApp = getattr(known_apps, platform)(**CLIENT, **scope, **options)
    return app


async def answered(app: OAuthApp, body: Any, *, status: int = 200, call: str = "refresh") -> Any:
    """Return what an app makes of an answer, and the request that got it."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if "well-known" in request.url.path:
            google = "https://oauth2.googleapis.com"
            document = {"issuer": "https://accounts.google.com", "token_endpoint": f"{google}/token"}
            document |= {"revocation_endpoint": f"{google}/revoke"}
            document |= {"authorization_endpoint": "https://accounts.google.com/o/oauth2/v2/auth"}
            return httpx.Response(200, json=document)
        sent.append(request)
        return httpx.Response(status, json=body)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        http = http_over(client)
        if call == "code":
            result: Any = await app.exchange_code(http, "c-1", verifier="v" * 43, redirect_uri="https://a.example/c")
        elif call == "revoke":
            result = None
            await app.revoke(http, "r-1", hint="refresh_token")
        elif call == "url":
            options = {"redirect_uri": "https://a.example/c", "state": "s", "challenge": "x" * 43, "nonce": ""}
            result = await app.authorization_url(http, scope=app.scope, **options)
        else:
            result = await app.refresh(http, "r-1")
    return result, sent


# Platform, its answer, the expected refresh token and lifetime. From the platforms' own documents.
ANSWERS = [
    ("google", {"access_token": "a-1", "expires_in": 3599, "scope": "one", "token_type": "Bearer"}, None, math.inf),
    ("microsoft", {**PAIR, "ext_expires_in": 3600, "scope": "one two"}, "r-2", 3600),
    (
        "github",
        {**PAIR, "expires_in": 28800, "refresh_token_expires_in": 15811200, "scope": "", "token_type": "bearer"},
        "r-2",
        28800,
    ),
    ("github", {"access_token": "a-1", "scope": "repo,gist", "token_type": "bearer"}, None, math.inf),
    ("slack", {"ok": True, **PAIR, "expires_in": 43200, "token_type": "user"}, "r-2", 43200),
    (
        "slack",
        {"ok": True, "authed_user": {"id": "U1", "scope": "one,two", "access_token": "a-1", "token_type": "user"}},
        None,
        math.inf,
    ),
    (
        "slack",
        {"ok": True, "access_token": "bot", "authed_user": {"id": "U1", **PAIR, "expires_in": 43200}},
        "r-2",
        43200,
    ),
    ("feishu", {"code": 0, **PAIR, "expires_in": 7200, "refresh_token_expires_in": 604800}, "r-2", 7200),
    ("lark", {"code": "0", **PAIR, "expires_in": 7200}, "r-2", 7200),
    ("dingtalk", {"accessToken": "a-1", "refreshToken": "r-2", "expireIn": 7200, "corpId": "c"}, "r-2", 7200),
    ("atlassian", {**PAIR, "scope": "one two"}, "r-2", 3600),
    (
        "salesforce",
        {
            "access_token": "a-1",
            "refresh_token": "r-2",
            "instance_url": "https://na1.example",
            "issued_at": "1708058728442",
            "token_type": "Bearer",
        },
        "r-2",
        7200,
    ),
    ("zoom", {**PAIR, "expires_in": 3599, "scope": "meeting:read"}, "r-2", 3599),
]


@pytest.mark.parametrize(("platform", "body", "refresh_token", "lifetime"), ANSWERS)
async def test_answers_of_each_platform(platform: str, body: Any, refresh_token: str | None, lifetime: float) -> None:
    """Tokens, lifetime and scopes are found where the platform puts them."""
    pair, _ = await answered(app_of(platform), body)
    expected = 3599 if platform == "google" else lifetime
    assert ("a-1", refresh_token, expected) == (pair.access_token, pair.refresh_token, pair.expires_in)
    if "repo,gist" in str(body) or "one,two" in str(body):
        assert pair.scope in ("repo gist", "one two")


REFUSALS = [
    ("google", 400, {"error": "invalid_grant"}, GrantRefused),
    ("microsoft", 400, {"error": "invalid_grant", "error_codes": [70008]}, GrantRefused),
    ("microsoft", 400, {"error": "interaction_required"}, GrantRefused),
    ("github", 200, {"error": "bad_refresh_token"}, GrantRefused),
    ("github", 200, {"error": "incorrect_client_credentials"}, CredentialRejected),
    ("slack", 200, {"ok": False, "error": "invalid_refresh_token"}, GrantRefused),
    ("slack", 200, {"ok": False, "error": "bad_client_secret"}, CredentialRejected),
    ("slack", 200, {"ok": False, "error": "internal_error"}, TokenUnavailable),
    ("feishu", 400, {"code": 20064, "error": "invalid_grant"}, GrantRefused),
    ("feishu", 400, {"code": 20037, "error": "invalid_grant"}, GrantRefused),
    *(("feishu", 200, {"code": code, "msg": "no"}, GrantRefused) for code in (20024, 20026, 20037, 20064, 20073)),
    *(("lark", 400, {"code": code, "error": "server_error"}, TokenUnavailable) for code in (20050, 20072)),
    ("lark", 400, {"code": 20050}, TokenUnavailable),
    ("feishu", 400, {"code": 20002, "error": "invalid_client"}, CredentialRejected),
    ("feishu", 400, {"code": 20002}, CredentialRejected),
    ("feishu", 400, {"code": 20074, "msg": "the app must not refresh"}, CredentialRejected),
    ("feishu", 200, {"code": 20999, "msg": "unknown"}, CredentialRejected),
    ("dingtalk", 400, {"code": "invalidParameter.authCode.notFound", "message": "no"}, GrantRefused),
    ("dingtalk", 400, {"code": "invalidParameter.refreshToken.notFound", "message": "no"}, GrantRefused),
    *(
        ("dingtalk", 400, {"code": code, "message": "no"}, GrantRefused)
        for code in ("invalid_refresh_token", "refresh_token_expired", "refresh_token_revoked")
    ),
    ("dingtalk", 400, {"code": "invalidClientIdOrSecret", "message": "no"}, CredentialRejected),
    ("dingtalk", 400, {"code": "qps.exceed.limit", "message": "no"}, TokenUnavailable),
    ("atlassian", 403, {"error": "invalid_grant"}, GrantRefused),
    ("salesforce", 400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}, GrantRefused),
    ("zoom", 400, {"reason": "Invalid Token!", "error": "invalid_grant"}, GrantRefused),
    ("zoom", 401, {"reason": "Invalid Token!", "error": "invalid_request"}, GrantRefused),
    ("zoom", 400, {"reason": "Invalid client_id or client_secret", "error": "invalid_client"}, CredentialRejected),
]


@pytest.mark.parametrize(("platform", "status", "body", "error"), REFUSALS)
async def test_refusals_of_each_platform(platform: str, status: int, body: Any, error: type[Exception]) -> None:
    """Only a refused refresh token asks the user to connect again, also where the platform sends HTTP 200."""
    with pytest.raises(error) as raised:
        await answered(app_of(platform), body, status=status)
    assert type(raised.value) is error


@pytest.mark.parametrize("platform", KNOWN_APPS)
async def test_authorization_requests(platform: str) -> None:
    """Each has the platform's parameters, and PKCE wherever the platform knows it."""
    url, _ = await answered(app_of(platform, params={"login_hint": "ada"}), {}, call="url")
    query = dict(parse_qsl(urlsplit(str(url)).query))
    assert {"login_hint": "ada", "response_type": "code", "state": "s", "client_id": "crm"}.items() <= query.items()
    assert ("code_challenge" in query) is (platform != "dingtalk")
    assert KNOWN_APPS[platform].params.items() <= query.items()
    scopes = query["user_scope" if platform == "slack" else "scope"]
    assert scopes.startswith({"slack": "one,two", "dingtalk": "openid"}.get(platform, "one two"))
    assert "{" not in url


async def test_requests_in_the_platforms_names() -> None:
    """DingTalk's camel case, and JSON where the platform expects it."""
    _, sent = await answered(app_of("dingtalk"), {"accessToken": "a", "expireIn": 1}, call="code")
    assert {
        "clientId": "crm",
        "clientSecret": CLIENT["client_secret"],
        "code": "c-1",
        "grantType": "authorization_code",
        "redirect_uri": "https://a.example/c",
    } == json.loads(sent[0].content)
    for platform in ("feishu", "atlassian"):
        _, sent = await answered(app_of(platform), PAIR, call="code")
        assert {"client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri"} == set(
            json.loads(sent[0].content)
        )
    _, sent = await answered(app_of("zoom"), PAIR, call="code")
    assert sent[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("platform", "url", "authenticates"),
    [
        ("google", "https://oauth2.googleapis.com/revoke", False),
        ("salesforce", "https://login.salesforce.com/services/oauth2/revoke", False),
        ("zoom", "https://zoom.us/oauth/revoke", True),
    ],
)
async def test_revocations(platform: str, url: str, *, authenticates: bool) -> None:
    """Where the platform has an endpoint for it."""
    _, sent = await answered(app_of(platform), {}, call="revoke")
    assert url == str(sent[0].url)
    assert authenticates is ("authorization" in sent[0].headers)
    assert b"token=r-1" in sent[0].content
    _, none = await answered(app_of("github"), {}, call="revoke")
    assert not none


class Answer:
    """An API's response."""

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.headers = {"content-type": "application/json"}
        self.body: bytes | None = None if body is None else json.dumps(body).encode()


@pytest.mark.parametrize(
    ("platform", "answer", "rejected"),
    [
        ("google", Answer(401, {}), True),
        ("slack", Answer(200, {"ok": False, "error": "invalid_auth"}), True),
        ("slack", Answer(200, {"ok": True}), False),
        ("slack", Answer(200, None), None),
        ("feishu", Answer(400, {"code": 99991677}), True),
        ("feishu", Answer(400, {"code": 99991679}), False),
        ("dingtalk", Answer(400, {"code": "InvalidAuthentication"}), True),
        ("dingtalk", Answer(400, {"code": "other"}), False),
    ],
)
def test_rejected_tokens(platform: str, answer: Answer, *, rejected: bool | None) -> None:
    """The auth object replaces a token that the platform's API rejects."""
    assert rejected is app_of(platform).is_rejected(answer)


def test_where_the_token_goes() -> None:
    """Into `Authorization`; at DingTalk into its own header."""
    request = httpx.Request("GET", "https://api.example")
    app_of("google").authorize(request, make_token("t-1"))
    assert "Bearer t-1" == request.headers["authorization"]
    other = httpx.Request("GET", "https://api.example")
    app_of("dingtalk").authorize(other, make_token("t-2"))
    assert ("t-2", False) == (other.headers["x-acs-dingtalk-access-token"], "authorization" in other.headers)


async def test_options_win_over_the_table() -> None:
    """Another host, another tenant, an endpoint of one's own."""
    sandbox = known_apps.salesforce(**CLIENT, scope="offline_access", host="test.salesforce.com")
    url, _ = await answered(sandbox, {}, call="url")
    assert url.startswith("https://test.salesforce.com/services/oauth2/authorize?")
    tenant = known_apps.microsoft(**CLIENT, scope="offline_access", tenant="72f988bf-86f1")
    url, _ = await answered(tenant, {}, call="url")
    assert url.startswith("https://login.microsoftonline.com/72f988bf-86f1/oauth2/v2.0/authorize?")
    own = app_of("github", authorize_url="https://github.example/login/oauth/authorize")
    url, _ = await answered(own, {}, call="url")
    assert url.startswith("https://github.example/")


def test_options_that_cannot_work_are_refused() -> None:
    """A scope that gives no refresh token is reported at construction."""
    for platform in ("microsoft", "feishu", "atlassian", "salesforce"):
        with pytest.raises(ConfigurationError, match="refresh token"):
            getattr(known_apps, platform)(**CLIENT, scope="one")
    with pytest.raises(ConfigurationError, match="tenant"):
        known_apps.microsoft(**CLIENT, scope="offline_access", tenant="a/b")
    with pytest.raises(ConfigurationError, match="TLS"):
        known_apps.google(client_id="crm", client_secret="s", issuer="http://accounts.google.com")
