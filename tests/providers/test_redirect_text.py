"""A redirect of a token endpoint: the text says where it leads, in no word of the server's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.providers.wire import http_answer, wire
from tokenmw.errors import TokenUnavailable

if TYPE_CHECKING:
    from tokenmw.providers import TokenHTTP


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("/token/", "to the same server"),
        ("https://127.0.0.1/token", "to https:// on port 443 of the same host"),
        ("https://s3cr3t.example/s3cr3t", "to another host"),
        ("//s3cr3t.example", "to another host"),
        ("http://[s3cr3t", "to another host"),
        ("", "to the same server"),
        ("/" + "x" * 9_000, "to the same server"),
    ],
)
async def test_text_says_where_a_redirect_leads(http: TokenHTTP, location: str, leads: str) -> None:
    """The server chooses the target, which may repeat the secret, so no part of it is shown."""
    async with wire(http_answer(308, headers=f"location: {location}\r\n")) as server:
        with pytest.raises(TokenUnavailable) as caught:
            await http.request("POST", f"{server.url}/token")
    fix = f"(HTTP 308) {leads}, which is not followed: configure the URL it leads to"
    assert str(caught.value).endswith(fix)
