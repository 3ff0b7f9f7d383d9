"""ConnectApp: how a user connects accounts, sees them and disconnects them."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.responses import PlainTextResponse

from tests.connections.connecting import CALLBACK, SECRET, SITE, Connecting, kind_of
from tokenmw.connections.connect_app import ConnectApp
from tokenmw.errors import ConfigurationError
from tokenmw.testing import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import HTTPConnection


@pytest.fixture
async def world() -> AsyncGenerator[Connecting]:
    """A browser in front of the program."""
    made = Connecting()
    async with made.browser, made.idp:
        yield made


async def test_a_user_connects_an_account(world: Connecting) -> None:
    """The browser goes to the server and back, the pair is stored for the user, and the cookie is gone."""
    url = await world.begin()
    asked = dict(parse_qsl(url.query.decode()))
    assert {"client_id": "crm", "redirect_uri": CALLBACK, "response_type": "code", "code_challenge_method": "S256"} == {
        name: asked[name] for name in ("client_id", "redirect_uri", "response_type", "code_challenge_method")
    }
    assert "openid read" == asked["scope"]
    assert {43} == {len(asked[name]) for name in ("state", "nonce", "code_challenge")}
    answer = await world.back(await world.consent(url))
    assert (303, "/settings") == (answer.status_code, answer.headers["location"])
    pair = world.users.pairs["crm", "ada"]
    assert world.server.users.family_of(pair.refresh_token or "").user == "ada@idp"
    assert not world.browser.cookies
    assert ("no-store", "no-referrer") == (answer.headers["cache-control"], answer.headers["referrer-policy"])


async def test_the_cookie_is_for_this_host_and_shows_nothing(world: Connecting) -> None:
    """`__Host-`, `Secure`, `HttpOnly`, `SameSite=Lax`, ten minutes, and encrypted."""
    answer = await world.browser.get("/connect/crm")
    line = answer.headers["set-cookie"]
    assert re.fullmatch(
        r"__Host-tokenmw-connect-[0-9a-f]{24}=[A-Za-z0-9_-]+; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure", line
    )
    assert not any(word in line for word in ("ada", "crm", "read"))


async def test_plain_http_is_for_loopback_only(world: Connecting) -> None:
    """There the cookie has neither the prefix nor `Secure`, which need TLS; any other host is a configuration error."""
    world.server.users.register("crm", "http://localhost:8000/connect/crm/callback")
    answer = await world.browser.get("http://localhost:8000/connect/crm")
    assert answer.headers["set-cookie"].startswith("tokenmw-connect-")
    assert "Secure" not in answer.headers["set-cookie"]
    with pytest.raises(ConfigurationError, match="public_url"):
        await world.browser.get("http://app.example/connect/crm")
    for wrong in ("http://app.example/connect", "app.example", "https://app.example/?a=b"):
        with pytest.raises(ConfigurationError, match="public_url"):
            ConnectApp(world.users, allow=lambda _connection: True, public_url=wrong)


async def test_behind_a_proxy_the_public_url_counts(world: Connecting) -> None:
    """The program sees http and another host; the redirect URI and the cookie are those of the public URL."""
    world.options["public_url"] = "https://app.example/connect/"
    answer = await world.browser.get("http://10.0.0.7:8000/connect/crm")
    assert answer.headers["set-cookie"].startswith("__Host-")
    assert CALLBACK == dict(parse_qsl(urlsplit(answer.headers["location"]).query))["redirect_uri"]


async def test_a_user_denies(world: Connecting) -> None:
    """The page says so, the user can go back, and nothing is stored or logged."""
    world.server.users.denies = "access_denied"
    answer = await world.connect()
    assert "denied" == kind_of(answer)
    assert '<a href="/settings">' in answer.text
    assert not world.users.pairs
    assert not world.browser.cookies


@pytest.mark.parametrize(
    ("code", "kind"),
    [("login_required", "denied"), ("server_error", "unavailable"), ("invalid_scope", "refused"), ("<b>", "refused")],
)
async def test_other_errors_of_the_server(
    world: Connecting, caplog: pytest.LogCaptureFixture, code: str, kind: str
) -> None:
    """Each is one of a few kinds. What the server sent is on no page."""
    world.server.users.denies = code
    answer = await world.connect()
    assert kind == kind_of(answer)
    assert "<b>" not in answer.text + caplog.text


async def test_two_tabs_do_not_disturb_each_other(world: Connecting) -> None:
    """Each flow has a cookie of its own, so both are completed, in any order."""
    first, second = await world.begin(), await world.begin("/connect/mail", return_to="/projects/7")
    assert 2 == len(world.browser.cookies)
    answer = await world.back(await world.consent(second))
    assert (303, "/projects/7") == (answer.status_code, answer.headers["location"])
    assert 303 == (await world.back(await world.consent(first))).status_code
    assert {("crm", "ada"), ("mail", "ada")} == set(world.users.pairs)


async def test_the_exchange_fails(world: Connecting, caplog: pytest.LogCaptureFixture) -> None:
    """The user reads one sentence, the operator the reason; no code, token or state is in the log."""
    for fault, kind in ((Fault(status=503), "unavailable"), (Fault(status=401), "refused")):
        callback = await world.consent(await world.begin())
        world.server.oauth2.script.then(fault)
        answer = await world.back(callback)
        assert kind == kind_of(answer)
        assert "idp.example" not in answer.text
        assert not any(value in caplog.text for value in (callback.params["code"], callback.params["state"], SECRET))
    world.users.store_fails = True
    assert "unavailable" == kind_of(await world.connect())
    assert "A user could not connect an account of crm" in caplog.text
    assert [logging.WARNING] * len(caplog.records) == [record.levelno for record in caplog.records]


async def test_what_is_not_allowed(world: Connecting) -> None:
    """`allow` comes first and fails closed; without a user nothing works; unknown apps and methods are refused."""
    get, post = world.browser.get, world.browser.post
    world.allowed = False
    for answer in (await get("/connect/crm"), await get("/connect/"), await post("/connect/crm/disconnect")):
        assert "not_allowed" == kind_of(answer)
    world.allowed = "yes"  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="allow"):
        await get("/connect/crm")
    world.allowed = True
    answer = await world.browser.get("/connect/crm", headers={"x-user": ""})
    assert ("not_signed_in", 401) == (kind_of(answer), answer.status_code)
    for path, status in (("/connect/none", 404), ("/connect/crm/other", 404), ("/connect/crm/callback/x", 404)):
        assert status == (await get(path)).status_code
    for path in ("/connect/crm", "/connect/crm/callback", "/connect/"):
        assert (405, "GET") == ((answer := await post(path)).status_code, answer.headers["allow"])
    assert 405 == (await get("/connect/crm/disconnect")).status_code
    assert 405 == (await world.browser.head("/connect/crm")).status_code


async def test_states_and_disconnect(world: Connecting) -> None:
    """A page of the same origin disconnects, any other is refused, and the tokens are revoked."""
    await world.connect()
    script = {"accept": "*/*"}
    listed = (await world.browser.get("/connect/", headers=script)).json()
    assert {"state": "ok", "connect_url": f"{SITE}/connect/crm", "reason": ""}.items() <= listed["crm"].items()
    assert "none" == listed["mail"]["state"]
    refused: list[Mapping[str, str]] = [
        {},
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "origin": "https://sub.app.example"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://app.example"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
    ]
    for headers in refused:
        answer = await world.browser.post("/connect/crm/disconnect", headers={**script, **headers})
        assert (403, "not_allowed") == (answer.status_code, answer.json()["kind"]), headers
    assert world.users.pairs
    answer = await world.browser.post("/connect/crm/disconnect", headers={**script, "sec-fetch-site": "same-origin"})
    assert 204 == answer.status_code
    assert not world.users.pairs
    form = {"origin": "null", "sec-fetch-site": "same-origin"}  # of a page with Referrer-Policy: no-referrer
    answer = await world.browser.post("/connect/crm/disconnect", headers=form)
    assert (303, "/settings") == (answer.status_code, answer.headers["location"])


async def test_further_scopes_by_name(world: Connecting) -> None:
    """Only from the list; those that the user has granted before are asked for again."""
    world.options["scopes"] = {"crm": {"write": "write", "all": "admin delete"}}
    assert "openid read write" == (await world.begin(scope="write")).params["scope"]
    assert "openid read write admin delete" == (await world.begin(scope="write all")).params["scope"]
    assert "openid read" == (await world.begin()).params["scope"]
    await world.connect(scope="write")
    assert "openid read admin delete write" == (await world.begin(scope="all")).params["scope"]
    for scope in ("admin", "read", "openid"):
        assert "invalid" == kind_of(await world.browser.get("/connect/crm", params={"scope": scope}))
    assert "invalid" == kind_of(await world.browser.get("/connect/mail", params={"scope": "write"}))
    refused: list[Any] = [{"none": {}}, {"crm": {"a b": "c"}}, {"crm": {"a": ["b"]}}, {"crm": "write"}, ["crm"]]
    for wrong in refused:
        with pytest.raises(ConfigurationError, match="scopes"):
            ConnectApp(world.users, allow=lambda _connection: True, scopes=wrong)


async def test_pages_of_the_program(world: Connecting) -> None:
    """`on_success` and `on_error` get what happened, and answer."""

    async def connected(_connection: HTTPConnection, what: Any) -> PlainTextResponse:
        return PlainTextResponse(f"{what.app} {what.subject} {what.scope} {what.return_to}")

    def failed(_connection: HTTPConnection, what: Any) -> PlainTextResponse:
        return PlainTextResponse(f"{what.app} {what.kind}", what.status)

    world.options |= {"on_success": connected, "on_error": failed}
    assert "crm ada openid read /settings" == (await world.connect()).text
    world.server.users.denies = "access_denied"
    answer = await world.connect()
    assert ("crm denied", 403, "no-store") == (answer.text, answer.status_code, answer.headers["cache-control"])


async def test_without_paths_a_small_page_says_so(world: Connecting) -> None:
    """It has no script and loads nothing."""
    world.options["return_to"] = ()
    answer = await world.connect()
    assert (200, "default-src 'none'") == (answer.status_code, answer.headers["content-security-policy"][:18])
    assert "Account connected" in answer.text
    assert "<script" not in answer.text
    assert "src=" not in answer.text


async def test_a_browser_with_many_open_flows_forgets_them(world: Connecting) -> None:
    """Else its cookies would be too long for servers."""
    for _ in range(20):
        await world.begin()
    assert len(world.browser.cookies) <= 9


async def test_a_server_that_cannot_be_reached(world: Connecting) -> None:
    """The user reads that, and no cookie is set."""
    for _ in range(4):
        world.server.oauth2_metadata.script.then(Fault(status=503))
        world.server.openid_metadata.script.then(Fault(status=503))
    answer = await world.browser.get("/connect/crm")
    assert ("unavailable", 503) == (kind_of(answer), answer.status_code)
    assert not world.browser.cookies
