"""The ready apps against the test server, whose answers are those of the platforms."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.connections.over_http import http_over
from tests.testing.test_authorization import CALLBACK, CHALLENGE, VERIFIER
from tokenmw.connections import known_apps
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.pair import GrantRefused
from tokenmw.errors import CredentialRejected
from tokenmw.testing import ManualClock, ProviderServer

ENDPOINTS = {
    "feishu": "feishu_user",
    "lark": "feishu_user",
    "dingtalk": "dingtalk_user",
    "slack": "slack",
    "github": "github",
}


@dataclass(frozen=True)
class Served:
    """A ready app, and the server that answers it."""

    app: OAuthApp
    server: ProviderServer
    clock: ManualClock
    endpoint: Any
    http: Any
    client: httpx.AsyncClient

    async def code(self) -> str:
        """Send a user to the platform, and return the code of the redirect."""
        options = {"redirect_uri": CALLBACK, "state": "s", "challenge": CHALLENGE, "nonce": ""}
        url = await self.app.authorization_url(self.http, scope=self.app.scope, **options)
        answer = await self.client.get(str(url))
        parameters = parse_qs(urlsplit(answer.headers["location"]).query)
        return next(parameters[name][0] for name in ("code", "authCode") if name in parameters)

    async def exchange(self, code: str) -> Any:
        """Exchange a code."""
        return await self.app.exchange_code(self.http, code, verifier=VERIFIER, redirect_uri=CALLBACK)


@pytest.fixture(params=ENDPOINTS)
async def served(request: pytest.FixtureRequest) -> AsyncGenerator[Served]:
    """A ready app of each platform, at which a user consents to everything."""
    clock = ManualClock()
    server = ProviderServer(clients={"crm": "s"}, clock=clock)
    server.users.register("crm", CALLBACK)
    server.users.auto = "ada"
    scope = {} if request.param == "dingtalk" else {"scope": "offline_access a:read"}
    app: OAuthApp = getattr(known_apps, request.param)(client_id="crm", client_secret="s", **scope)
    async with httpx.AsyncClient(transport=server.transport()) as client:
        endpoint = getattr(server, ENDPOINTS[request.param])
        yield Served(app, server, clock, endpoint, http_over(client), client)


async def test_a_user_is_connected_and_refreshed(served: Served) -> None:
    """The code, both pairs, the scope and the lifetime are read from the platform's own fields."""
    first = await served.exchange(await served.code())
    second = await served.app.refresh(served.http, first.refresh_token)
    family = served.server.users.family_of(first.refresh_token)
    assert [first.refresh_token, second.refresh_token] == family.refresh_tokens
    assert [first.access_token, second.access_token] == family.access_tokens
    assert (served.endpoint.life, served.endpoint.life) == (first.expires_in, second.expires_in)
    assert served.app.scope == family.scope
    # DingTalk's answers do not name the scope.
    assert {first.scope, second.scope} == {None if "dingtalk" in family.endpoint else family.scope}
    assert ["granted", "granted"] == [post.outcome for post in served.server.users.posts]


async def test_a_refused_refresh_token_means_that_the_user_connects_again(served: Served) -> None:
    """An unknown, used, revoked or expired one."""
    first = await served.exchange(await served.code())
    second = await served.app.refresh(served.http, first.refresh_token)
    late = served.server.users.grant("ada", client="crm", endpoint=served.endpoint)
    assert first.refresh_token
    assert second.refresh_token
    for refused in ("never-issued", first.refresh_token, second.refresh_token):
        with pytest.raises(GrantRefused):
            await served.app.refresh(served.http, refused)
    assert "reuse" == served.server.users.family_of(first.refresh_token).revoked_because
    served.clock.advance(served.server.users.refresh_life)
    with pytest.raises(GrantRefused):
        await served.app.refresh(served.http, late.refresh_token)


async def test_a_refused_code_means_that_the_user_connects_again(served: Served) -> None:
    """An unknown, used or expired one."""
    codes = [await served.code() for _ in range(2)]
    await served.exchange(codes[0])
    served.clock.advance(60)
    for refused in ("never-issued", *codes):
        with pytest.raises(GrantRefused):
            await served.exchange(refused)


async def test_a_refused_secret_leaves_the_connection_alone(served: Served) -> None:
    """The operator has to correct it, and the user does not have to connect again."""
    pair = served.server.users.grant("ada", client="crm", endpoint=served.endpoint)
    served.server.clients = {"crm": "another"}
    with pytest.raises(CredentialRejected) as caught:
        await served.app.refresh(served.http, pair.refresh_token)
    assert not isinstance(caught.value, GrantRefused)
    assert pair.family.alive
