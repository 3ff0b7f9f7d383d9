"""Users connect accounts at `oidc-provider`, a certified server, with rotation and detection of reuse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.connections.memory_store import MemoryStore
from tests.interop.oidc_browser import Browser
from tests.interop.running import node, running
from tokenmw import TokenBroker
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.connect_app import ConnectApp
from tokenmw.connections.connections import Connections
from tokenmw.errors import ReconnectRequired

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from starlette.requests import HTTPConnection

pytestmark = pytest.mark.sdk

SITE = "http://localhost:8000"
SECRET = "a secret:with/special+characters%3D&as=well"
SCOPE = "openid offline_access read"


@pytest.fixture(scope="module")
def issuer() -> Generator[str]:
    """The issuer of a server with one client of each method."""
    callbacks = [f"{SITE}/connect/{name}/callback" for name in ("basic", "post")]
    clients: list[dict[str, Any]] = [
        {
            "client_id": name,
            "client_secret": SECRET,
            "token_endpoint_auth_method": f"client_secret_{name}",
            "redirect_uris": callbacks,
            "application_type": "native",  # loopback redirect URIs
        }
        for name in ("basic", "post")
    ]
    with running(node("oidc_users.mjs"), clients=clients) as issuer:
        yield issuer


class World:
    """A program with connections.

    Attributes:
        broker: Its broker.
        app: The program.
    """

    def __init__(self, issuer: str) -> None:
        options: dict[str, Any] = {"client_secret": SECRET, "scope": SCOPE, "params": {"prompt": "consent"}}
        apps = {name: OAuthApp(issuer=issuer, client_id=name, **options) for name in ("basic", "post")}
        self.connections = Connections(apps, store=MemoryStore(), subject=_user)
        self.broker = TokenBroker({}, connections=self.connections, secret_key="k7Qm-secret-of-the-sealer-91")
        connect = ConnectApp(self.broker, allow=lambda _connection: True, return_to=("/settings",))
        self.app = Starlette(routes=[Mount("/connect", connect)])
        self.issuer = issuer

    def browser(self, user: str = "user-17") -> Browser:
        """Return a new browser, in which a user of the program is signed in."""
        return Browser(self.app, site=SITE, user=user)

    async def is_active(self, token: str) -> bool:
        """Return whether the server accepts a token."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(
                f"{self.issuer}/token/introspection",
                data={"token": token, "client_id": "post", "client_secret": SECRET},
            )
        active: bool = answer.json()["active"]
        return active


def _user(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


@pytest.fixture
async def world(issuer: str) -> AsyncGenerator[World]:
    """An open program."""
    made = World(issuer)
    async with made.broker:
        yield made


@pytest.mark.parametrize("name", ["basic", "post"])
async def test_a_user_connects_and_the_tokens_are_refreshed(world: World, name: str) -> None:
    """Each refresh spends the refresh token once, twenty of them in a row; disconnecting revokes it."""
    async with world.browser() as browser:
        answer = await browser.go(f"/connect/{name}")
        assert (303, "/settings") == (answer.status_code, answer.headers["location"])
        users = world.broker.connections
        token = await users.token(name, "user-17")
        assert await world.is_active(token.value)
        seen = {token.value}
        for _ in range(20):
            # As if an API had answered 401: the next request needs another token.
            await world.broker._open().token_sync.invalidate_current(
                users._opened().entry(users._provider(name, "user-17"))
            )
            token = await users.token(name, "user-17")
            seen.add(token.value)
        state = await users.state(name, "user-17")
        assert state is not None
        assert ("ok", set(SCOPE.split())) == (state.state, set(state.scope.split()))
        assert 21 == len(seen)
        assert await world.is_active(token.value)
        assert await users.disconnect(name, "user-17")
        with pytest.raises(ReconnectRequired):
            await users.token(name, "user-17")


async def test_a_user_denies(world: World) -> None:
    """The server's own page has a way back, which leads to ours."""
    async with world.browser() as browser:
        answer = await browser.go("/connect/basic", deny=True)
        assert 403 == answer.status_code
        assert "access was not granted" in answer.text


async def test_a_replayed_callback_is_not_sent_again(world: World) -> None:
    """The server would revoke what the code was exchanged for."""
    async with world.browser() as browser:
        sent: list[httpx.Request] = []

        async def record(request: httpx.Request) -> None:
            sent.append(request)

        browser.own.event_hooks = {"request": [record]}
        await browser.go("/connect/basic")
        callback = next(request for request in sent if "/callback" in str(request.url))
        again = await browser.own.get(str(callback.url), headers={"cookie": callback.headers["cookie"]})
        assert 400 == again.status_code
        assert "completed before" in again.text
        token = await world.broker.connections.token("basic", "user-17")
        assert await world.is_active(token.value)


async def test_a_user_code_is_typed_elsewhere(world: World) -> None:
    """The device flow: the pages are those of the server."""
    flow = await world.broker.connections.device("basic", "user-18", scope="openid offline_access read")
    assert re.fullmatch(r"[A-Z-]{6,12}", flow.user_code)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as client:
        page = await client.get(flow.verification_uri_complete)
        # Its pages: the code, a confirmation, the login and the consent.
        for _ in range(6):
            action = re.search(r'action="([^"]+)"', page.text)
            if action is None:
                break
            hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
            fields = {**hidden, "user_code": flow.user_code, "login": "ada", "password": "x", "confirm": "yes"}
            page = await client.post(action[1], data=fields)
    await flow.done()
    token = await world.broker.connections.token("basic", "user-18")
    assert await world.is_active(token.value)
