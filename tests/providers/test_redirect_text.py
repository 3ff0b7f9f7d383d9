"""A redirect of a token endpoint: the text says where it leads and what to check, in no word of the server's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.providers.wire import http_answer, wire
from tokenmw.errors import TokenUnavailable

if TYPE_CHECKING:
    from tokenmw.providers import TokenHTTP

CHECK = "check that the provider's URL (token_url, base_url) is that of the token endpoint"


async def text_of(http: TokenHTTP, status: int, headers: str) -> str:
    """Return the text for a redirect, from its status on."""
    async with wire(http_answer(status, headers=headers)) as server:
        with pytest.raises(TokenUnavailable) as caught:
            await http.request("POST", f"{server.url}/token")
    return str(caught.value).partition("answered with a redirect ")[2]


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("/token/", "to the same server"),
        ("https://127.0.0.1/token", "to https:// on port 443 of the same host"),
        ("https://s3cr3t.example/s3cr3t", "to another host"),
        ("//s3cr3t.example", "to another host"),
        ("http://[s3cr3t", "to another host"),
        ("/" + "x" * 9_000, "to the same server"),
    ],
)
async def test_text_says_where_a_redirect_leads(http: TokenHTTP, location: str, leads: str) -> None:
    """The server chooses the target, which may repeat the secret, so no part of it is shown."""
    fix = f"{leads}, which is not followed: configure the URL it leads to"
    assert f"(HTTP 308) {fix}" == await text_of(http, 308, f"location: {location}\r\n")
    # With these statuses, servers send browsers to a page; an endpoint that has moved uses 307 or 308.
    page = f", or if that is a page for browsers, {CHECK}"
    assert f"(HTTP 302) {fix}{page}" == await text_of(http, 302, f"location: {location}\r\n")


@pytest.mark.parametrize("headers", ["", "location: \r\n", "x-location: /token\r\n"])
@pytest.mark.parametrize("status", [300, 302, 304, 307])
async def test_a_redirect_without_a_location(http: TokenHTTP, status: int, headers: str) -> None:
    """There is no URL that it leads to, so the text says what else to check."""
    text = await text_of(http, status, headers)
    assert f"(HTTP {status}) that leads nowhere, because it has no Location: {CHECK}" == text


@pytest.mark.parametrize(
    "location",
    [
        "https://sso.s3cr3t.example/login?next=s3cr3t",
        "/users/sign_in",
        "/Account/LogOn?ReturnUrl=%2ftoken",
        "/sso/start",
        "/oauth2/authorize?client_id=s3cr3t",
        "/adfs/ls/",
        "/accounts/signin",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307])
async def test_a_redirect_to_a_login_page(http: TokenHTTP, status: int, location: str) -> None:
    """To configure the login page's URL would be no fix."""
    text = await text_of(http, status, f"location: {location}\r\n")
    assert f"(HTTP {status}) to a login page for browsers, which is not followed: {CHECK}" == text


@pytest.mark.parametrize(
    "location", ["/logistics/token", "/oauth2/token", "/signing/token", "/casino/token", "/blogin/x"]
)
async def test_other_words_are_no_login_page(http: TokenHTTP, location: str) -> None:
    """Words are compared as a whole."""
    text = await text_of(http, 308, f"location: {location}\r\n")
    assert "(HTTP 308) to the same server, which is not followed: configure the URL it leads to" == text
