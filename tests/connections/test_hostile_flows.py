"""What an attacker, or a server that was set up carelessly, may do to the flows."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.connections.connecting import IDP, SECRET, Connecting, changed, kind_of
from tests.connections.memory_users import MemoryUsers
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.connect_app import ConnectApp
from tokenmw.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@pytest.fixture
async def world() -> AsyncGenerator[Connecting]:
    """A browser in front of the program."""
    made = Connecting()
    async with made.browser, made.idp:
        yield made


@pytest.mark.parametrize("response", ["error", "foreign iss", "no code"])
async def test_any_response_uses_a_flow(world: Connecting, response: str) -> None:
    """A browser forgets the cookie after each response; a copy of the cookie is refused after each one as well."""
    callback = await world.consent(await world.begin())
    line = "; ".join(f"{name}={value}" for name, value in world.browser.cookies.items())
    state = {"state": callback.params["state"], "iss": IDP}
    bad = {
        "error": {**state, "error": "access_denied"},
        "foreign iss": {**state, "iss": "https://evil.example", "code": "x"},
        "no code": state,
    }
    assert 400 <= (await world.back(callback.copy_with(params=bad[response]))).status_code
    assert "expired" == kind_of(await world.back(callback, cookie=line))
    assert not world.users.pairs


async def test_the_cookies_of_many_flows_stay_short(world: Connecting) -> None:
    """A page that opens one flow after another must not make the browser's requests too long for servers."""
    longest = 0
    for number in range(12):
        await world.begin(return_to=f"/projects/{'a' * 900}{number}")
        longest = max(longest, sum(len(f"{name}={value}; ") for name, value in world.browser.cookies.items()))
    assert longest < 6_000
    # The last one is kept, whatever was forgotten.
    answer = await world.connect(return_to="/projects/last")
    assert (303, "/projects/last") == (answer.status_code, answer.headers["location"])


async def test_the_oldest_flows_are_forgotten_first(world: Connecting) -> None:
    """A second tab is not disturbed by those that were left open before."""
    urls = [await world.begin() for _ in range(9)]
    for url in urls[-3:]:
        assert 303 == (await world.back(await world.consent(url))).status_code
    assert "expired" == kind_of(await world.back(await world.consent(urls[0])))


@pytest.mark.parametrize("name", ["my crm", "ünï", "a?b", "a#b", "a%2fb", "a&b"])
async def test_names_are_escaped_in_urls(world: Connecting, name: str) -> None:
    """The redirect URI and the `connect_url` are URLs, whatever the app is called."""
    app = OAuthApp(issuer=IDP, client_id="crm", client_secret=SECRET, scope="openid")
    world.users = MemoryUsers({name: app}, world.idp, clock=world.clock)
    escaped = quote(name, safe="")
    redirect_uri = f"https://app.example/connect/{escaped}/callback"
    world.server.users.register("crm", redirect_uri)
    assert f"/connect/{escaped}" == world.users.config.connect_url(name)
    url = await world.begin(f"/connect/{escaped}")
    assert redirect_uri == url.params["redirect_uri"]
    assert 303 == (await world.back(await world.consent(url))).status_code
    assert {(name, "ada")} == set(world.users.pairs)


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_urls_cannot_have_are_refused(name: str) -> None:
    """Browsers and proxies remove them from paths."""
    app = OAuthApp(issuer=IDP, client_id="crm", client_secret=SECRET)
    with pytest.raises(ConfigurationError, match=rf"'{re.escape(name)}'"):
        MemoryUsers({name: app}, None)


async def test_the_path_of_a_mount_is_escaped(world: Connecting) -> None:
    """A path that a request chooses cannot put a query or a line into the redirect URI."""
    connect = ConnectApp(world.users, allow=lambda _: True)
    world._made = Starlette(routes=[Mount("/t/{tenant}/connect", connect)])
    for tenant in ("a?b", "#", "a b", "\r\nX", "ü"):
        escaped = quote(tenant, safe="")
        answer = await world.browser.get(f"/t/{escaped}/connect/crm")
        redirect_uri = httpx.URL(answer.headers["location"]).params["redirect_uri"]
        assert f"https://app.example/t/{escaped}/connect/crm/callback" == redirect_uri


@pytest.mark.parametrize("header", ["x-forwarded-proto", "x-forwarded-for", "x-forwarded-host", "forwarded", "via"])
async def test_a_proxy_that_hides_the_public_url_is_noticed(world: Connecting, header: str) -> None:
    """Some proxies pass their own target as the host, which is then this machine: the redirect would lead there."""
    with pytest.raises(ConfigurationError, match=f"{header}.*public_url|public_url.*{header}"):
        await world.browser.get("http://localhost:8000/connect/crm", headers={header: "x"})
    world.options["public_url"] = "https://app.example/connect"
    del world._made
    assert 302 == (await world.browser.get("http://localhost:8000/connect/crm", headers={header: "x"})).status_code


@pytest.mark.parametrize("user", ["None", " ", "\u3000"])
async def test_no_user_is_not_a_user(world: Connecting, user: str) -> None:
    """`str(session.get("user"))` is one text for everyone who is not signed in: they would share a connection."""
    object.__setattr__(world.users.config, "subject", lambda _connection: user)
    with pytest.raises(ConfigurationError, match=r"subject=….*return None"):
        await world.browser.get("/connect/crm")


async def test_a_session_that_the_redirect_back_lacks_is_logged(
    world: Connecting, caplog: pytest.LogCaptureFixture
) -> None:
    """With `SameSite=Strict` the browser leaves the session's cookie out, and the user reads "Sign in first."."""
    callback = await world.consent(await world.begin())
    assert "not_signed_in" == kind_of(await world.back(callback, **{"x-user": ""}))
    assert "SameSite=Lax" in caplog.text
    assert [logging.WARNING] == [record.levelno for record in caplog.records]
    caplog.clear()
    world.allowed = False
    assert "not_allowed" == kind_of(await world.back(callback))
    assert "SameSite=Lax" not in caplog.text  # there is a user
    world.allowed = True
    assert "not_signed_in" == kind_of(await world.back(changed(callback, state="x"), **{"x-user": ""}))
    assert not caplog.records


@pytest.mark.parametrize("mode", ["cors", "no-cors", "same-origin"])
async def test_only_a_navigation_begins_a_flow(world: Connecting, caplog: pytest.LogCaptureFixture, mode: str) -> None:
    """An image of another page cannot begin one, and a script that fetches the URL learns why it gets nowhere."""
    assert "invalid" == kind_of(await world.browser.get("/connect/crm", headers={"sec-fetch-mode": mode}))
    assert "location.href" in caplog.text
    assert not world.browser.cookies
    assert 302 == (await world.browser.get("/connect/crm", headers={"sec-fetch-mode": "navigate"})).status_code


def test_no_parameter_is_set_twice() -> None:
    """Not in the URL of the endpoint, and not under a platform's own name."""
    options: dict[str, Any] = {"token_url": f"{IDP}/t", "client_id": "crm", "client_secret": SECRET}
    for query in ("state=1", "a=b&client_id=x", "scope=", "redirect_uri=x", "response_type=token", "nonce=1"):
        with pytest.raises(ConfigurationError, match=r"authorize_url=….*leave it out"):
            OAuthApp(authorize_url=f"{IDP}/a?{query}", **options)
    OAuthApp(authorize_url=f"{IDP}/a?tenant=1", **options)
