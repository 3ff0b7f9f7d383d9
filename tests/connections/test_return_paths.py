"""Where a user may be sent after connecting an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.connections.connecting import Connecting, kind_of
from tokenmw.connections.return_paths import ReturnPaths
from tokenmw.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@pytest.fixture
async def world() -> AsyncGenerator[Connecting]:
    """A browser in front of the program."""
    made = Connecting()
    async with made.browser, made.idp:
        yield made


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
async def test_a_user_returns_only_to_listed_paths(world: Connecting, path: str) -> None:
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
