from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.providers.unlogged_url import unlogged, with_query_token

URL = "https://api.example/send?type=a%20b&access_token=old&z=1+2&access_token="


def test_query_is_sent_and_not_written(library: Any) -> None:
    """What prints or formats it sees no query; what sends it sees all of it."""
    url = unlogged(unlogged(library.URL(URL)))
    assert isinstance(url, library.URL)
    assert b"/send?type=a%20b&access_token=old&z=1+2&access_token=" == url.raw_path
    for written in (str(url), repr(url), f"{url}", "{0}".format(url)):  # noqa: UP030, UP032  as the libraries do
        assert "access_token" not in written
        assert "https://api.example/send" in written


def test_token_takes_the_place_of_an_older_one(library: Any) -> None:
    """Once, also when a request is sent again; the rest of the query stays letter by letter."""
    url = library.URL(URL)
    for token in ("t-1", "t-2"):
        url = with_query_token(url, "access_token", token)
        assert f"type=a%20b&z=1+2&access_token={token}".encode() == url.query
        assert "https://api.example/send" == str(url)


@pytest.mark.parametrize(
    ("token", "sent"), [("a+b/c=", b"a%2Bb%2Fc%3D"), ("a&b#c%", b"a%26b%23c%25"), ("-._~", b"-._~")]
)
def test_token_of_any_letters_arrives(library: Any, token: str, sent: bytes) -> None:
    """A token with a plus or an ampersand is still one parameter."""
    url = with_query_token(library.URL("https://api.example/"), "access_token", token)
    assert b"access_token=" + sent == url.query
    assert token == library.URL("https://api.example/", query=url.query).params["access_token"]


TOKENS = st.text("".join(map(chr, range(0x21, 0x7F))), min_size=1, max_size=40)


@given(TOKENS, st.text("abc=&%+ ", max_size=12))
def test_every_token_comes_out_of_the_query_as_it_went_in(token: str, query: str) -> None:
    """Read as servers read a query."""
    url = with_query_token(httpx.URL("https://api.example/").copy_with(query=query.encode()), "access_token", token)
    assert [token] == parse_qs(url.query.decode())["access_token"]
