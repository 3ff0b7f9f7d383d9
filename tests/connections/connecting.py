"""One browser, the program with `ConnectApp`, and the authorization server, in this process."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.connections.memory_users import MemoryUsers
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.connect_app import ConnectApp
from tokenmw.connections.flow_problem import TEXTS
from tokenmw.testing import ManualClock, ProviderServer

SITE = "https://app.example"
IDP = "https://idp.example"
SECRET = "s3cret-of-crm"
PAGE = {"accept": "text/html", "x-user": "ada"}
CALLBACK = f"{SITE}/connect/crm/callback"


class Connecting:
    """One browser, the program with `ConnectApp`, and the authorization server."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = ProviderServer(clients={"crm": SECRET, "other": SECRET}, clock=self.clock)
        self.server.users.register("crm", CALLBACK, f"{SITE}/connect/mail/callback")
        self.server.users.auto = "ada@idp"
        self.idp = httpx.AsyncClient(transport=self.server.transport())
        options: dict[str, Any] = {"issuer": IDP, "client_id": "crm", "client_secret": SECRET}
        apps = {"crm": OAuthApp(**options, scope="openid read"), "mail": OAuthApp(**options, scope="mail")}
        self.users = MemoryUsers(apps, self.idp, clock=self.clock)
        self.options: dict[str, Any] = {"return_to": ("/settings", "/projects/*")}
        self.allowed = True
        self.browser = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self._app), base_url=SITE, headers=dict(PAGE), follow_redirects=False
        )

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    @property
    def app(self) -> Starlette:
        """The program; made anew, as another worker."""
        if not hasattr(self, "_made"):
            connect = ConnectApp(self.users, allow=lambda _connection: self.allowed, **self.options)
            self._made = Starlette(routes=[Mount("/connect", connect)])
        return self._made

    async def begin(self, path: str = "/connect/crm", **query: str) -> httpx.URL:
        """Begin a flow, and return the URL of the server to which the browser is sent."""
        answer = await self.browser.get(path, params=query)
        assert 302 == answer.status_code, answer.text
        return httpx.URL(answer.headers["location"])

    async def consent(self, url: httpx.URL) -> httpx.URL:
        """Return where the server sends the browser back."""
        answer = await self.idp.get(url)
        assert 302 == answer.status_code, answer.text
        return httpx.URL(answer.headers["location"])

    async def back(self, url: httpx.URL, **headers: str) -> httpx.Response:
        """Follow a redirect back to the program."""
        return await self.browser.get(str(url), headers=headers)

    async def connect(self, **query: str) -> httpx.Response:
        """Connect the account."""
        return await self.back(await self.consent(await self.begin(**query)))


def kind_of(answer: httpx.Response) -> str:
    """Return why a flow failed, by the sentence on the page."""
    found = [kind for kind, text in TEXTS.items() if f"<p>{text}</p>" in answer.text]
    assert 1 == len(found), answer.text
    assert 400 <= answer.status_code
    return found[0]


def changed(url: httpx.URL, **parameters: str) -> httpx.URL:
    """Return a URL with other parameters."""
    return url.copy_merge_params(parameters)
