"""ProviderServer issues tokens of users in the shapes of platforms: Feishu, DingTalk, Slack and GitHub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.testing.test_authorization import CALLBACK, CHALLENGE, VERIFIER
from tokenmw.testing import Fault, ManualClock, ProviderServer


@dataclass(frozen=True)
class Platform:
    """What a client sends to a platform, and how it reads the answers."""

    authorize: str
    token: str
    fields: dict[str, str]
    """The platform's names for the fields of a token request."""
    json: bool
    status: int
    """The HTTP status of a refusal."""
    names: tuple[str, str, str]
    """The platform's names for access token, refresh token and lifetime."""
    life: int
    api: str
    header: str
    error: Callable[[dict[str, Any]], Any]
    errors: dict[str, Any]
    pkce: bool = True
    scope: str = "scope"
    code: str = "code"


OAUTH = {name: name for name in ("grant_type", "client_id", "client_secret", "code", "refresh_token", "redirect_uri")}
DINGTALK = {
    "grant_type": "grantType",
    "client_id": "clientId",
    "client_secret": "clientSecret",
    "code": "code",
    "refresh_token": "refreshToken",
}
PLATFORMS = {
    "feishu_user": Platform(
        authorize="/open-apis/authen/v1/authorize",
        token="/open-apis/authen/v2/oauth/token",
        fields=OAUTH | {"code_verifier": "code_verifier"},
        json=True,
        status=400,
        names=("access_token", "refresh_token", "expires_in"),
        life=7200,
        api="/open-apis/authen/v1/user_info",
        header="authorization",
        error=lambda answer: answer["code"],
        errors={
            "code": 20003,
            "code again": 20065,
            "refresh token": 20026,
            "refresh token again": 20073,
            "revoked": 20064,
            "client": 20002,
            "grant": 20036,
            "redirect_uri": 20071,
            "verifier": 20049,
            "code late": 20004,
            "refresh token late": 20037,
        },
    ),
    "dingtalk_user": Platform(
        authorize="/oauth2/auth",
        token="/v1.0/oauth2/userAccessToken",
        fields=DINGTALK,
        json=True,
        status=400,
        names=("accessToken", "refreshToken", "expireIn"),
        life=7200,
        api="/v1.0/contact/users/me",
        header="x-acs-dingtalk-access-token",
        error=lambda answer: answer["code"],
        errors={"client": "invalidClientIdOrSecret", "grant": "invalidParameter.grantType"}
        | dict.fromkeys(
            (
                "code",
                "code again",
                "refresh token",
                "refresh token again",
                "revoked",
                "code late",
                "refresh token late",
            ),
            "invalidParameter.authCode.notFound",
        ),
        pkce=False,
        code="authCode",
    ),
    "slack": Platform(
        authorize="/oauth/v2/authorize",
        token="/api/oauth.v2.access",
        fields=OAUTH | {"code_verifier": "code_verifier"},
        json=False,
        status=200,
        names=("access_token", "refresh_token", "expires_in"),
        life=43200,
        api="/api/auth.test",
        header="authorization",
        error=lambda answer: None if answer["ok"] else answer["error"],
        errors={"client": "bad_client_secret", "grant": "invalid_grant_type", "redirect_uri": "bad_redirect_uri"}
        | dict.fromkeys(("code", "code again", "code late", "verifier"), "invalid_code")
        | dict.fromkeys(
            ("refresh token", "refresh token again", "revoked", "refresh token late"), "invalid_refresh_token"
        ),
        scope="user_scope",
    ),
    "github": Platform(
        authorize="/login/oauth/authorize",
        token="/login/oauth/access_token",
        fields=OAUTH | {"code_verifier": "code_verifier"},
        json=False,
        status=200,
        names=("access_token", "refresh_token", "expires_in"),
        life=28800,
        api="/api/user",
        header="authorization",
        error=lambda answer: answer.get("error"),
        errors={
            "client": "incorrect_client_credentials",
            "grant": "unsupported_grant_type",
            "redirect_uri": "redirect_uri_mismatch",
        }
        | dict.fromkeys(("code", "code again", "code late", "verifier"), "bad_verification_code")
        | dict.fromkeys(("refresh token", "refresh token again", "revoked", "refresh token late"), "bad_refresh_token"),
    ),
}


@pytest.fixture(params=PLATFORMS)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a platform's token endpoint."""
    return str(request.param)


@pytest.fixture
def platform(name: str, server: ProviderServer) -> Platform:
    """A platform with a registered app, and a user who consents."""
    server.users.register("crm", CALLBACK)
    server.users.auto = "ada"
    return PLATFORMS[name]


async def code_of(client: Any, platform: Platform) -> str:
    """Return the code that an authorization request gets."""
    asked = {
        "response_type": "code",
        "client_id": "crm",
        "redirect_uri": CALLBACK,
        "state": "a state",
        platform.scope: "a:read,b:read" if platform.scope == "user_scope" else "a:read b:read",
    }
    if platform.pkce:
        asked |= {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    answer = await client.get(platform.authorize, params=asked, follow_redirects=False)
    assert 302 == answer.status_code
    parameters = parse_qs(urlsplit(str(answer.headers["location"])).query)
    assert {"state", platform.code} == set(parameters)
    return parameters[platform.code][0]


async def post(client: Any, platform: Platform, **asked: str) -> Any:
    """Send a token request, and return the answer."""
    fields = {"client_id": "crm", "client_secret": "s"} | asked
    body = {platform.fields[name]: value for name, value in fields.items() if name in platform.fields}
    headers = {"accept": "application/json"}
    return await client.post(platform.token, headers=headers, **{"json" if platform.json else "data": body})


async def with_code(client: Any, platform: Platform, code: str, **asked: str) -> Any:
    """Send a code."""
    fields = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": VERIFIER, "code": code}
    return await post(client, platform, **(fields | asked))


async def with_refresh_token(client: Any, platform: Platform, refresh_token: str) -> Any:
    """Send a refresh token."""
    return await post(client, platform, grant_type="refresh_token", refresh_token=refresh_token)


def pair_in(platform: Platform, answer: Any) -> tuple[str, str, int]:
    """Return the access token, the refresh token and the lifetime of an answer."""
    assert 200 == answer.status_code
    content = answer.json()
    tokens = content.get("authed_user", content)
    access, refresh, life = (tokens[name] for name in platform.names)
    return access, refresh, life


async def user_of(client: Any, platform: Platform, access_token: str) -> str | None:
    """Return the user for whom the platform's API accepts a token; None if it does not."""
    value = access_token if platform.header.startswith("x-") else f"Bearer {access_token}"
    content = (await client.get(platform.api, headers={platform.header: value})).json()
    found: str | None = content.get("data", content).get("user", content.get("user_id"))
    return found


async def test_a_code_and_refresh_tokens_give_tokens(
    server: ProviderServer, client: Any, name: str, platform: Platform
) -> None:
    """By the platform's own names; the API accepts them as the user's."""
    access, refresh, life = pair_in(platform, await with_code(client, platform, await code_of(client, platform)))
    assert (platform.life, "ada") == (life, await user_of(client, platform, access))
    family = server.users.family_of(refresh)
    assert ("ada", "crm", "a:read b:read") == (family.user, family.client, family.scope)
    new, newer, _ = pair_in(platform, await with_refresh_token(client, platform, refresh))
    assert [refresh, newer] == family.refresh_tokens
    assert "ada" == await user_of(client, platform, new)
    assert (None if name == "github" else "ada") == await user_of(client, platform, access)
    assert ["granted", "granted"] == [post.outcome for post in server.users.posts]
    assert {name: 2, (name, "crm"): 2}.items() <= server.calls.items()


async def test_refusals_have_the_codes_of_the_platform(
    server: ProviderServer, clock: ManualClock, client: Any, name: str, platform: Platform
) -> None:
    """Of a wrong, late or used code or refresh token, of a wrong secret, and of another grant."""

    async def error(answer: Any) -> Any:
        assert platform.status == answer.status_code
        return platform.error(answer.json())

    codes = [await code_of(client, platform) for _ in range(3)]
    found = {
        "client": await error(await with_code(client, platform, codes[0], client_secret="wrong")),
        "grant": await error(await post(client, platform, grant_type="password")),
        "code": await error(await with_code(client, platform, "never-issued")),
        "refresh token": await error(await with_refresh_token(client, platform, "never-issued")),
    }
    if platform.pkce:
        found["verifier"] = await error(await with_code(client, platform, codes[0], code_verifier="w" * 43))
        found["redirect_uri"] = await error(await with_code(client, platform, codes[0], redirect_uri="https://x.test"))
    refresh = pair_in(platform, await with_code(client, platform, codes[0]))[1]
    await with_refresh_token(client, platform, refresh)
    found["refresh token again"] = await error(await with_refresh_token(client, platform, refresh))
    found["revoked"] = await error(await with_refresh_token(client, platform, refresh))
    assert not server.users.family_of(refresh).alive
    await with_code(client, platform, codes[1])
    found["code again"] = await error(await with_code(client, platform, codes[1]))
    clock.advance(60)
    found["code late"] = await error(await with_code(client, platform, codes[2]))
    late = server.users.grant("ada", client="crm", endpoint=getattr(server, name)).refresh_token
    clock.advance(server.users.refresh_life)
    found["refresh token late"] = await error(await with_refresh_token(client, platform, late))
    assert platform.errors == found


async def test_platforms_have_faults(server: ProviderServer, client: Any, name: str, platform: Platform) -> None:
    """Before and after the rotation, as any other endpoint."""
    endpoint: Any = getattr(server, name)
    pair = server.users.grant("ada", client="crm", endpoint=endpoint)
    endpoint.script.then(Fault(status=503), Fault(status=502, after=True))
    assert 503 == (await with_refresh_token(client, platform, pair.refresh_token)).status_code
    assert 502 == (await with_refresh_token(client, platform, pair.refresh_token)).status_code
    assert ["", "granted"] == [post.outcome for post in pair.family.posts]


async def test_a_refresh_token_belongs_to_its_endpoint(server: ProviderServer, client: Any, platform: Platform) -> None:
    """That of another one is not known."""
    pair = server.users.grant("ada", client="crm")
    answer = await with_refresh_token(client, platform, pair.refresh_token)
    assert platform.errors["refresh token"] == platform.error(answer.json())
    assert pair.family.alive


async def test_github_answers_with_a_form_unless_json_is_asked_for(server: ProviderServer, client: Any) -> None:
    """The platform's default."""
    pair = server.users.grant("ada", client="crm", endpoint=server.github)
    form = {
        "client_id": "crm",
        "client_secret": "s",
        "grant_type": "refresh_token",
        "refresh_token": pair.refresh_token,
    }
    answers = [await client.post("/login/oauth/access_token", data=form) for _ in range(2)]
    assert {"application/x-www-form-urlencoded"} == {
        answer.headers["content-type"].partition(";")[0] for answer in answers
    }
    assert [28800] == [int(value) for value in parse_qs(answers[0].text)["expires_in"]]
    assert ["bad_refresh_token"] == parse_qs(answers[1].text)["error"]


async def test_github_connects_a_device(server: ProviderServer, clock: ManualClock, client: Any) -> None:
    """Without a secret; until the user has approved, each poll is refused with HTTP 200."""
    headers = {"accept": "application/json"}
    unknown = await client.post("/login/device/code", params={"client_id": "x"}, headers=headers)
    assert (200, "incorrect_client_credentials") == (unknown.status_code, unknown.json()["error"])
    begun = (await client.post("/login/device/code", params={"client_id": "crm"}, headers=headers)).json()
    assert {"device_code", "user_code", "verification_uri", "expires_in", "interval"} == set(begun)

    async def poll(device_code: str) -> Any:
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        form = {"client_id": "crm", "grant_type": grant, "device_code": device_code}
        answer = await client.post("/login/oauth/access_token", data=form, headers=headers)
        assert 200 == answer.status_code
        return answer.json()

    assert "incorrect_device_code" == (await poll("x"))["error"]
    assert ["authorization_pending", "slow_down"] == [(await poll(begun["device_code"]))["error"] for _ in range(2)]
    server.users.approve_device(begun["user_code"], "ada")
    clock.advance(10)
    granted = await poll(begun["device_code"])
    assert "ada" == server.users.family_of(granted["refresh_token"]).user
    assert granted["access_token"].startswith("ghu-")
    assert {"github_device": 2, ("github_device", "crm"): 1, "github": 4}.items() <= server.calls.items()


async def test_slack_s_api_names_what_is_wrong_with_a_token(
    server: ProviderServer, clock: ManualClock, client: Any
) -> None:
    """With HTTP 200, as all answers of the platform."""

    async def test(token: str) -> Any:
        answer = await client.post("/api/auth.test", headers={"authorization": f"Bearer {token}"} if token else {})
        assert 200 == answer.status_code
        return answer.json().get("error")

    first, second = (server.users.grant("ada", client="crm", endpoint=server.slack).access_token for _ in range(2))
    server.revoke(first)
    assert [None, "token_revoked"] == [await test(second), await test(first)]
    clock.advance(43200)
    assert ["token_expired", "invalid_auth", "not_authed"] == [await test(token) for token in (second, "x", "")]
    basic = {"grant_type": "refresh_token", "refresh_token": "x"}
    answer = await client.post("/api/oauth.v2.access", data=basic, auth=("crm", "s"))
    assert {"ok": False, "error": "invalid_refresh_token"} == answer.json()
