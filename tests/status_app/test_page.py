"""The page: small, quick, without other assets, readable without sight, and without a secret."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest

from tests.asgi_client import call
from tests.status_app.serving import AT, everyone, serve_status
from tests.status_app.shown import SECRET, broker_of, fill
from tokenmw import Limits, TokenBroker, TokenUnavailable
from tokenmw.providers import StaticToken
from tokenmw.status_app import StatusApp


class Elements(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements with this tag."""
        return [attributes for name, attributes in self.found if name == tag]


async def test_the_page_of_many_tenants_is_small_and_quick() -> None:
    """With 500 tenants and 10 000 sessions it takes less than 60 KB and 200 ms, also when 10 000 tenants fail."""
    broker = broker_of(limits=Limits(new_sessions=20_000))
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        await fill(broker, tenants=500, sessions=10_000)
        began = time.perf_counter()
        page = await client.get(f"{AT}/")
        seconds = time.perf_counter() - began
        status = await client.get(f"{AT}/status.json")
        assert len(page.content) < 60_000
        assert seconds < 0.2
        assert SECRET not in page.text + status.text
        assert "No token for billing, mail. 450 credentials of callables are failing." in page.text
        assert "And 430 more." in page.text


async def test_many_providers_are_left_out_after_those_that_fail() -> None:
    """Of 1 000 names the page shows 50, the failing ones first, and how many it leaves out."""

    async def fails() -> str:
        raise TokenUnavailable("busy")

    names = {f"p{number}": StaticToken(f"t{number}") for number in range(999)}
    async with TokenBroker({**names, "last": StaticToken(fails)}) as broker:
        with pytest.raises(TokenUnavailable):
            await broker.token("last")
        page = (await call(StatusApp(broker, allow_all=True))).body.decode()
    assert page.index(">last<") < page.index(">p0<")
    assert "And 950 more." in page
    assert len(page) < 60_000


async def test_the_page_loads_nothing_else() -> None:
    """Style and script are inline and allowed by their hashes; there is no style attribute, image, font or frame."""
    async with broker_of() as broker:
        await fill(broker, tenants=3, sessions=3)
        answered = await call(StatusApp(broker, allow_all=True))
    page = Elements(answered.body.decode())
    policy = answered.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert [tag for tag, attributes in page.found if {"src", "style", "onclick"} & set(attributes)] == []
    assert {tag for tag, _ in page.found} & {"img", "link", "iframe", "object", "base"} == set()


async def test_the_page_is_for_screen_readers_and_keyboards() -> None:
    """It has a language, a title, landmarks, headers of rows and columns, labels, and one polite live region."""
    async with broker_of() as broker:
        await fill(broker, tenants=3, sessions=3)
        text = (await call(StatusApp(broker, allow_all=True, allow_actions=everyone))).body.decode()
    page = Elements(text)
    assert page.of("html") == [{"lang": "en"}]
    assert "<title>tokenmw status</title>" in text
    assert all(len(page.of(landmark)) == 1 for landmark in ("header", "main", "footer", "h1"))
    assert {header.get("scope") for header in page.of("th")} == {"row", "col"}
    assert all(table["aria-label"] for table in page.of("table"))
    live = [attributes for _, attributes in page.found if "aria-live" in attributes]
    assert [attributes["aria-live"] for attributes in live] == ["polite"]
    fields = {field["id"] for tag in ("select", "input") for field in page.of(tag)}
    assert fields == {label["for"] for label in page.of("label")} == {"provider", "key"}
    assert page.of("meta")[1]["content"] == "width=device-width,initial-scale=1"
    assert re.search(r'<noscript><meta http-equiv="refresh" content="5"></noscript>', text)


async def test_names_and_errors_are_escaped() -> None:
    """The name of a provider, its error and the path of the mount are text, and never elements."""

    async def fails() -> str:
        raise TokenUnavailable("<script>alert(1)</script>")

    async with TokenBroker({"<b>": StaticToken(fails)}) as broker:
        with pytest.raises(TokenUnavailable):
            await broker.token("<b>")
        app = StatusApp(broker, allow_all=True, allow_actions=everyone)
        page = (await call(app, path='/"><i>/', root_path='/"><i>')).body.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert {"b", "i"} & {tag for tag, _ in Elements(page).found} == set()
    assert len(Elements(page).of("script")) == 1
