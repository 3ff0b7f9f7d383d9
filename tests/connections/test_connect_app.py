"""ConnectApp over an authorization server: the flow of one browser, and every way in which it can be disturbed."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from tests.connections.memory_users import MemoryUsers
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.connect_app import ConnectApp
from tokenmw.connections.return_paths import ReturnPaths
from tokenmw.errors import ConfigurationError
from tokenmw.testing import Fault, ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import HTTPConnection

SITE = "https://app.example"
IDP = "https://idp.example"
SECRET = "s3cret-of-crm"
PAGE = {"accept": "text/html", "x-user": "ada"}
CALLBACK = f"{SITE}/connect/crm/callback"


class World:
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


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    """A browser in front of the program."""
    made = World()
    async with made.browser, made.idp:
        yield made


def kind_of(answer: httpx.Response) -> str:
    """Return why a flow failed, by the sentence on the page."""
    from tokenmw.connections.flow_problem import TEXTS

    found = [kind for kind, text in TEXTS.items() if f"<p>{text}</p>" in answer.text]
    assert 1 == len(found), answer.text
    assert 400 <= answer.status_code
    return found[0]


def changed(url: httpx.URL, **parameters: str) -> httpx.URL:
    """Return a URL with other parameters."""
    return url.copy_merge_params(parameters)


async def test_a_user_connects_an_account(world: World) -> None:
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


async def test_the_cookie_is_for_this_host_and_shows_nothing(world: World) -> None:
    """`__Host-`, `Secure`, `HttpOnly`, `SameSite=Lax`, ten minutes, and encrypted."""
    answer = await world.browser.get("/connect/crm")
    line = answer.headers["set-cookie"]
    assert re.fullmatch(
        r"__Host-tokenmw-connect-[0-9a-f]{24}=[A-Za-z0-9_-]+; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure", line
    )
    assert not any(word in line for word in ("ada", "crm", "read"))


async def test_plain_http_is_for_loopback_only(world: World) -> None:
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


async def test_behind_a_proxy_the_public_url_counts(world: World) -> None:
    """The program sees http and another host; the redirect URI and the cookie are those of the public URL."""
    world.options["public_url"] = "https://app.example/connect/"
    answer = await world.browser.get("http://10.0.0.7:8000/connect/crm")
    assert answer.headers["set-cookie"].startswith("__Host-")
    assert CALLBACK == dict(parse_qsl(urlsplit(answer.headers["location"]).query))["redirect_uri"]


async def test_a_user_denies(world: World) -> None:
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
async def test_other_errors_of_the_server(world: World, caplog: pytest.LogCaptureFixture, code: str, kind: str) -> None:
    """Each is one of a few kinds. What the server sent is on no page."""
    world.server.users.denies = code
    answer = await world.connect()
    assert kind == kind_of(answer)
    assert "<b>" not in answer.text + caplog.text


async def test_two_tabs_do_not_disturb_each_other(world: World) -> None:
    """Each flow has a cookie of its own, so both are completed, in any order."""
    first, second = await world.begin(), await world.begin("/connect/mail", return_to="/projects/7")
    assert 2 == len(world.browser.cookies)
    answer = await world.back(await world.consent(second))
    assert (303, "/projects/7") == (answer.status_code, answer.headers["location"])
    assert 303 == (await world.back(await world.consent(first))).status_code
    assert {("crm", "ada"), ("mail", "ada")} == set(world.users.pairs)


async def test_the_back_button_and_a_replayed_callback(world: World) -> None:
    """The browser has forgotten the cookie; with a copy of it the flow is refused too, and the code not sent again."""
    url = await world.begin()
    cookies = dict(world.browser.cookies)
    callback = await world.consent(url)
    assert 303 == (await world.back(callback)).status_code
    posts = len(world.server.users.posts)
    assert "expired" == kind_of(await world.back(callback))
    line = "; ".join(f"{name}={value}" for name, value in cookies.items())
    assert "expired" == kind_of(await world.back(callback, cookie=line))
    assert posts == len(world.server.users.posts)
    family = world.server.users.family_of(world.users.pairs["crm", "ada"].refresh_token or "")
    assert family.alive


async def test_a_foreign_state_is_refused(world: World) -> None:
    """Also if the browser has a flow: an attacker's callback in the user's browser connects nothing."""
    await world.begin()
    victim = world.browser.cookies
    attacker = World()
    async with attacker.browser, attacker.idp:
        callback = await attacker.consent(await attacker.begin())
    assert "expired" == kind_of(await world.back(callback))
    own = next(iter(victim.jar))
    line = f"{own.name}={own.value}"
    assert "expired" == kind_of(await world.back(changed(callback, state="x" * 43), cookie=line))
    assert "expired" == kind_of(await world.back(changed(callback, state=""), cookie=line))
    assert not world.users.pairs


async def test_a_cookie_under_another_name_does_not_open(world: World) -> None:
    """It is bound to its name, which is that of its state."""
    one, two = await world.begin(), await world.begin()
    names = list(world.browser.cookies)
    swapped = "; ".join(f"{names[index]}={world.browser.cookies[names[1 - index]]}" for index in range(2))
    for url in (one, two):
        assert "expired" == kind_of(await world.back(await world.consent(url), cookie=swapped))


@pytest.mark.parametrize("change", ["cut", "flip", "empty", "other secret"])
async def test_a_changed_cookie_does_not_open(world: World, change: str) -> None:
    """Whatever was changed; a cookie that another secret sealed counts as none."""
    callback = await world.consent(await world.begin())
    ((name, value),) = world.browser.cookies.items()
    if change == "other secret":
        from tokenmw.redis.sealing import Sealer

        world.users.sealer = Sealer(["another-secret-of-a-sealer-7"])
    flipped = ("A" if value[20] != "A" else "B").join((value[:20], value[21:]))
    changed_value = {"cut": value[:-9], "flip": flipped, "empty": "", "other secret": value}[change]
    assert "expired" == kind_of(await world.back(callback, cookie=f"{name}={changed_value}"))


async def test_a_flow_ends_after_ten_minutes(world: World) -> None:
    """A browser that keeps the cookie longer is refused all the same."""
    callback = await world.consent(await world.begin())
    line = "; ".join(f"{name}={value}" for name, value in world.browser.cookies.items())
    world.clock.advance(601.0)
    assert "expired" == kind_of(await world.back(callback, cookie=line))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault(fields={"iss": "https://evil.example"}), "foreign", id="foreign iss"),
        pytest.param(Fault(without=["iss"]), "foreign", id="no iss"),
        pytest.param(Fault(fields={"state": "x" * 43}), "expired", id="foreign state"),
        pytest.param(Fault(without=["code"]), "invalid", id="no code"),
        pytest.param(Fault(fields={"code": "foreign"}), "refused", id="foreign code"),
    ],
)
async def test_responses_of_others_are_refused(world: World, fault: Fault, kind: str) -> None:
    """RFC 9207, RFC 9700 §4.4, §4.5 and §4.7."""
    url = await world.begin()
    world.server.authorize.script.then(fault)
    assert kind == kind_of(await world.back(await world.consent(url)))
    assert not world.users.pairs


async def test_an_error_of_another_server_is_foreign(world: World) -> None:
    """The issuer is compared before the error is believed."""
    world.server.users.denies = "access_denied"
    url = await world.begin()
    world.server.authorize.script.then(Fault(fields={"iss": "https://evil.example"}))
    assert "foreign" == kind_of(await world.back(await world.consent(url)))


@pytest.mark.parametrize("name", ["state", "code", "iss"])
async def test_a_parameter_may_not_come_twice(world: World, name: str) -> None:
    """RFC 6749 §3.1."""
    callback = await world.consent(await world.begin())
    doubled = callback.copy_add_param(name, callback.params[name])
    assert "invalid" == kind_of(await world.back(doubled))


async def test_a_foreign_nonce_is_refused(world: World) -> None:
    """A code that was injected belongs to another flow, and its id token shows that."""
    url = await world.begin()
    callback = await world.consent(changed(url, nonce="n" * 43))
    assert "foreign" == kind_of(await world.back(callback))
    assert not world.users.pairs


async def test_another_user_cannot_finish_a_flow(world: World) -> None:
    """The browser has the cookie, but another user has signed in meanwhile."""
    callback = await world.consent(await world.begin())
    assert "other_user" == kind_of(await world.back(callback, **{"x-user": "mallory"}))
    assert not world.users.pairs


async def test_apps_that_are_mixed_up(world: World) -> None:
    """A response at the redirect URI of another app is refused before its code is sent anywhere."""
    callback = await world.consent(await world.begin())
    assert "foreign" == kind_of(await world.back(callback.copy_with(path="/connect/mail/callback")))
    assert not world.server.users.posts


async def test_the_exchange_fails(world: World, caplog: pytest.LogCaptureFixture) -> None:
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


async def test_what_is_not_allowed(world: World) -> None:
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


async def test_states_and_disconnect(world: World) -> None:
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
    form = {"origin": SITE, "sec-fetch-site": "same-origin"}
    answer = await world.browser.post("/connect/crm/disconnect", headers=form)
    assert (303, "/settings") == (answer.status_code, answer.headers["location"])


async def test_further_scopes_by_name(world: World) -> None:
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
    wrong: Any
    for wrong in ({"none": {}}, {"crm": {"a b": "c"}}, {"crm": {"a": ["b"]}}, {"crm": "write"}, ["crm"]):
        with pytest.raises(ConfigurationError, match="scopes"):
            ConnectApp(world.users, allow=lambda _connection: True, scopes=wrong)


async def test_pages_of_the_program(world: World) -> None:
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


async def test_without_paths_a_small_page_says_so(world: World) -> None:
    """It has no script and loads nothing."""
    world.options["return_to"] = ()
    answer = await world.connect()
    assert (200, "default-src 'none'") == (answer.status_code, answer.headers["content-security-policy"][:18])
    assert "Account connected" in answer.text
    assert "<script" not in answer.text
    assert "src=" not in answer.text


async def test_a_browser_with_many_open_flows_forgets_them(world: World) -> None:
    """Else its cookies would be too long for servers."""
    for _ in range(20):
        await world.begin()
    assert len(world.browser.cookies) <= 9


async def test_a_server_that_cannot_be_reached(world: World) -> None:
    """The user reads that, and no cookie is set."""
    for _ in range(4):
        world.server.oauth2_metadata.script.then(Fault(status=503))
        world.server.openid_metadata.script.then(Fault(status=503))
    answer = await world.browser.get("/connect/crm")
    assert ("unavailable", 503) == (kind_of(answer), answer.status_code)
    assert not world.browser.cookies


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/%2f/evil.example",
        "/%5cevil.example",
        "/settings/../admin",
        "/settings/",
        "/settings#x",
        "/settings\nLocation: x",
        "/projects//evil.example",
        "/projects/../admin",
        "/projects/%2e%2e/admin",
        "/projects/%252e%252e/admin",
        "/projects/..;/admin",
        "javascript:alert(1)",
        "settings",
        "/admin",
        "/settings" + "a" * 2000,
        " /settings",
        "/settings?next=\\evil",
    ],
)
async def test_a_user_returns_only_to_listed_paths(world: World, path: str) -> None:
    """There is no open redirect."""
    assert "invalid" == kind_of(await world.browser.get("/connect/crm", params={"return_to": path}))


@given(st.one_of(st.text(), st.from_regex(r"/[/\\%.a-z0-9;?#:@]*", fullmatch=True)))
def test_no_text_leads_to_another_host(path: str) -> None:
    """Whatever is allowed is read as a path of this site, by Python's parser and by httpx's, which differ."""
    allowed = ReturnPaths(["/settings", "/projects/*"], option="return_to").allows(path)
    if allowed:
        assert path.partition("?")[0] == "/settings" or path.startswith("/projects/")
        for base in ("https://app.example/connect/crm/callback",):
            joined = httpx.URL(base).join(path)
            assert ("app.example", "https") == (joined.host, joined.scheme)
            assert joined.path.startswith(("/settings", "/projects/"))
        assert not urlsplit(path).netloc


@pytest.mark.parametrize(
    "paths", ["/settings", ["settings"], ["//evil.example"], ["/*"], ["/a/*/b"], ["/a?b"], ["/a/../b"], [7], ["/\\a"]]
)
def test_paths_that_cannot_work_are_refused(paths: Any) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match="return_to"):
        ReturnPaths(paths, option="ConnectApp(return_to=…)")
