"""A real browser connects accounts: its cookies, its back button, its tabs, and pages of other sites."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from tests.connections.memory_store import MemoryStore
from tests.connections.world import documents_of
from tests.interop.chromium import Chromium, chromium
from tests.interop.running import imported
from tokenmw import TokenBroker
from tokenmw.connections import ConnectApp, Connections, OAuthApp
from tokenmw.connections.document import DISCONNECTED
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

imported("itsdangerous")
pytestmark = pytest.mark.sdk

SECRET = "s3cret-of-a-client-91"
SEALS = "k7Qm-secret-of-the-sealer-91"


class Site:
    """A program with connections over real HTTP, and the server of its accounts.

    Attributes:
        url: Where browsers reach the program.
        server: The server.
        store: The connections.
    """

    def __init__(self, server: ProviderServer, issuer: str) -> None:
        # It needs itsdangerous, without which this file is collected and skipped.
        from starlette.middleware.sessions import SessionMiddleware

        self.server = server
        self.store = MemoryStore()
        self.url = ""
        apps = {
            name: OAuthApp(issuer=issuer, client_id="crm", client_secret=SECRET, scope="openid read")
            for name in ("crm", "mail")
        }
        connections = Connections(apps, store=self.store, subject=_user)
        self.broker = TokenBroker({}, connections=connections, secret_key=SEALS)
        connect = ConnectApp(self.broker, allow=lambda _connection: True, return_to=("/", "/done"))
        self.app = Starlette(
            routes=[
                Route("/", _home),
                Route("/done", _home),
                Route("/sign-in/{user}", _sign_in),
                Mount("/connect", connect),
            ],
            middleware=[Middleware(SessionMiddleware, secret_key="session-secret-for-tests")],
            lifespan=self.broker.lifespan,
        )

    @property
    def connected(self) -> set[tuple[str, str]]:
        """The apps and users of all connections."""
        documents = documents_of(self.store, secrets=(SEALS,))
        return {
            (key.app, key.subject)
            for key, row in self.store.rows.items()
            if documents.opened(key, row.value, version=row.version).reconnect != DISCONNECTED
        }


def _user(connection: HTTPConnection) -> str | None:
    user: str | None = connection.session.get("user")
    return user


async def _home(request: Request) -> Response:
    form = '<form method="post" action="/connect/crm/disconnect"><button id="disconnect">Disconnect</button></form>'
    return HTMLResponse(
        f"<!doctype html><title>Home</title><p>This is {request.url.path} of {_user(request)}.</p>{form}"
    )


async def _sign_in(request: Request) -> Response:
    request.session["user"] = request.path_params["user"]
    return HTMLResponse("<!doctype html><p>You have signed in.</p>")


class _Server(uvicorn.Server):
    """A server whose process has its own handlers of signals."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def serving(site: Site) -> AsyncGenerator[None]:
    """Serve the program over HTTP, in this event loop."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        # Another site than the server's, for the browser: names differ, and with them the cookies.
        site.url = f"http://localhost:{listening.getsockname()[1]}"
        for name in ("crm", "mail"):
            site.server.users.register("crm", f"{site.url}/connect/{name}/callback")
        options: dict[str, Any] = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 1}
        server = _Server(uvicorn.Config(site.app, lifespan="on", http="h11", ws="none", **options))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(0.01)
            yield
        finally:
            server.should_exit = True
            await running


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    """The program and the server, over real HTTP."""
    server = ProviderServer(clients={"crm": SECRET})
    with server.running() as issuer:
        made = Site(server, issuer)
        async with serving(made):
            yield made


@pytest.fixture
async def browser() -> AsyncGenerator[Chromium]:
    """A browser with a new profile."""
    async with chromium() as running:
        yield running


async def test_connect_with_a_real_browser(site: Site, browser: Chromium) -> None:
    """Through the server's form and back: the session cookie and the flow's cookie survive the redirects."""
    tab = await browser.tab(f"{site.url}/sign-in/ada")
    await tab.wait_for("signed in")
    await tab.open(f"{site.url}/connect/crm?return_to=/done")
    await tab.wait_for("asks for")
    (cookie,) = [one for one in await browser.cookies() if "tokenmw-connect" in one["name"]]
    assert (True, "Lax", "/") == (cookie["httpOnly"], cookie["sameSite"], cookie["path"])
    await tab.run("document.querySelector('[name=user]').value = 'ada@idp'")
    await tab.click("[value=allow]")
    await tab.wait_for("This is /done of ada.")
    assert {("crm", "ada")} == site.connected
    assert not [one for one in await browser.cookies() if "tokenmw-connect" in one["name"]]


async def test_deny_and_the_back_button(site: Site, browser: Chromium) -> None:
    """After a denial and after a success, the back button leads to a page that says what to do."""
    tab = await browser.tab(f"{site.url}/sign-in/ada")
    await tab.wait_for("signed in")
    await tab.open(f"{site.url}/connect/crm")
    await tab.wait_for("asks for")
    await tab.run("document.querySelector('[name=user]').required = false")
    await tab.click("[value=deny]")
    await tab.wait_for("access was not granted")
    assert not site.connected
    # The consent page again, whose state is spent now.
    await tab.back()
    await tab.wait_for("asks for")
    await tab.run("document.querySelector('[name=user]').value = 'ada@idp'")
    await tab.click("[value=allow]")
    await tab.wait_for("has expired or was completed before")
    assert not site.connected
    site.server.users.auto = "ada@idp"
    await tab.open(f"{site.url}/connect/crm")
    await tab.wait_for("This is / of ada.")
    posts = len(site.server.users.posts)
    await tab.back()
    await tab.back()
    assert posts == len(site.server.users.posts)
    assert {("crm", "ada")} == site.connected


async def test_two_tabs(site: Site, browser: Chromium) -> None:
    """Two flows of one browser, also of one app, end in any order."""
    tab = await browser.tab(f"{site.url}/sign-in/ada")
    await tab.wait_for("signed in")
    tabs = [await browser.tab(f"{site.url}/connect/{name}?return_to=/done") for name in ("crm", "mail", "crm")]
    for one in tabs:
        await one.wait_for("asks for")
    for one in reversed(tabs):
        await one.run("document.querySelector('[name=user]').value = 'ada@idp'")
        await one.click("[value=allow]")
        await one.wait_for("This is /done of ada.")
    assert {("crm", "ada"), ("mail", "ada")} == site.connected


async def test_another_user_signs_in_meanwhile(site: Site, browser: Chromium) -> None:
    """The flow of the first one is not finished for the second one."""
    tab = await browser.tab(f"{site.url}/sign-in/ada")
    await tab.wait_for("signed in")
    await tab.open(f"{site.url}/connect/crm")
    await tab.wait_for("asks for")
    other = await browser.tab(f"{site.url}/sign-in/mallory")
    await other.wait_for("signed in")
    await tab.run("document.querySelector('[name=user]').value = 'ada@idp'")
    await tab.click("[value=allow]")
    await tab.wait_for("Another user began")
    assert not site.connected


async def test_only_our_own_pages_disconnect(site: Site, browser: Chromium) -> None:
    """A form of another site is refused, by what the browser says of where it comes from."""
    site.server.users.auto = "ada@idp"
    tab = await browser.tab(f"{site.url}/sign-in/ada")
    await tab.wait_for("signed in")
    await tab.open(f"{site.url}/connect/crm")
    await tab.wait_for("This is / of ada.")
    # The same program under another name is another site.
    evil = await browser.tab(site.url.replace("localhost", "127.0.0.1"))
    await evil.wait_for("This is / of None.")
    await evil.run(f"document.querySelector('form').action = '{site.url}/connect/crm/disconnect'")
    await evil.click("#disconnect")
    await evil.wait_for("/connect/crm/disconnect")
    assert {("crm", "ada")} == site.connected
    await tab.run("document.title = 'before'")
    await tab.click("#disconnect")
    while await tab.run("document.title") == "before":  # noqa: ASYNC110  the page sends no event
        await asyncio.sleep(0.05)
    await tab.wait_for("This is / of ada.")
    assert not site.connected
