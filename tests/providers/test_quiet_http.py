"""Secrets in URLs and in responses stay out of the clients' logs, at DEBUG as well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.providers.http_client import default_client
from tokenmw.providers.quiet_http import hide_query, with_query_token

SECRET = "s3cr3t-of-the-client"


@asynccontextmanager
async def server(answer: bytes) -> AsyncGenerator[str]:
    """Answer each request with these bytes, and close the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/token"


def token_http(client: Any) -> TokenHTTP:
    """Make the object that providers send requests through."""
    return TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("status", ["302 Found", "401 Unauthorized", "503 Busy"])
async def test_only_the_status_of_a_response_is_logged(
    library: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Headers may repeat the secret, so they are not logged; the provider gets them all."""
    caplog.set_level(logging.DEBUG)
    head = f"HTTP/1.1 {status}\r\nlocation: /?{SECRET}\r\nx-sent: {SECRET}\r\ncontent-length: 0\r\n\r\n"
    module = pytest.importorskip(library)
    async with server(head.encode()) as url, module.AsyncClient(trust_env=False) as client:
        try:
            answer = await token_http(client).request("GET", url)
        except TokenUnavailable:
            assert status.startswith("302")
        else:
            assert SECRET == answer.headers["x-sent"]
    assert f"receive_response_headers.complete return_value={status[:3]}" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_only_the_error_type_of_a_broken_response_is_logged(
    library: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error's text quotes the malformed line, so only its type is logged."""
    caplog.set_level(logging.DEBUG)
    module = pytest.importorskip(library)
    async with server(f"HTTP/1.1 200 OK\r\nno header {SECRET}\r\n\r\n".encode()) as url, module.AsyncClient() as client:
        with pytest.raises(TokenUnavailable, match=r"\(protocol\)"):
            await token_http(client).request("GET", url)
    assert "receive_response_headers.failed exception='RemoteProtocolError'" in caplog.text
    assert SECRET not in caplog.text


async def test_default_client_does_not_log_the_reason_phrase(caplog: pytest.LogCaptureFixture) -> None:
    """The server chooses the reason phrase, so the log has the standard's phrase instead."""
    caplog.set_level(logging.DEBUG)
    async with server(f"HTTP/1.1 429 {SECRET}\r\ncontent-length: 0\r\n\r\n".encode()) as url:
        http = token_http(default_client(limits=Limits()))
        assert 429 == (await http.request("GET", url)).status
        await http.aclose()
    assert '"HTTP/1.1 429 Too Many Requests"' in caplog.text
    assert SECRET not in caplog.text


async def test_headers_of_http2_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The HTTP/2 library logs each header at DEBUG; a `TokenHTTP` over any client drops that, and nothing else."""
    caplog.set_level(logging.DEBUG)
    for _ in range(2):
        async with httpx.AsyncClient() as client:
            token_http(client)
    for name in ("hpack.hpack", "hpack.table"):
        log = logging.getLogger(name)
        assert 1 == len(log.filters)
        log.debug("Adding %s to the header table", SECRET)
        log.warning("a warning of %s", name)
    logging.getLogger("hpack.other").debug("a line of another module")
    assert SECRET not in caplog.text
    assert ["a warning of hpack.hpack", "a warning of hpack.table", "a line of another module"] == [
        message for message in caplog.messages if " of " in message
    ]


URL = "https://api.example/send?type=a%20b&access_token=old&z=1+2&access_token="


def test_query_is_sent_and_not_written(library: Any) -> None:
    """The URL's text has no query, and the request on the wire has all of it."""
    url = hide_query(hide_query(library.URL(URL)))
    assert isinstance(url, library.URL)
    assert b"/send?type=a%20b&access_token=old&z=1+2&access_token=" == url.raw_path
    for written in (str(url), repr(url), f"{url}", "{0}".format(url)):  # noqa: UP030, UP032  as the libraries format it
        assert "access_token" not in written
        assert "https://api.example/send" in written


def test_token_replaces_an_older_one(library: Any) -> None:
    """The query has one token, also when a request is sent again, and its rest stays byte for byte."""
    url = library.URL(URL)
    for token in ("t-1", "t-2"):
        url = with_query_token(url, "access_token", token)
        assert f"type=a%20b&z=1+2&access_token={token}".encode() == url.query
        assert "https://api.example/send" == str(url)


@pytest.mark.parametrize(
    ("token", "sent"), [("a+b/c=", b"a%2Bb%2Fc%3D"), ("a&b#c%", b"a%26b%23c%25"), ("-._~", b"-._~")]
)
def test_special_characters_of_a_token_are_escaped(library: Any, token: str, sent: bytes) -> None:
    """A token with a plus or an ampersand is still one parameter."""
    url = with_query_token(library.URL("https://api.example/"), "access_token", token)
    assert b"access_token=" + sent == url.query
    assert token == library.URL("https://api.example/", query=url.query).params["access_token"]


TOKENS = st.text("".join(map(chr, range(0x21, 0x7F))), min_size=1, max_size=40)


@given(TOKENS, st.text("abc=&%+ ", max_size=12))
def test_servers_read_the_token_that_was_put_into_the_query(token: str, query: str) -> None:
    """Any token of visible ASCII, beside any query, is read back unchanged."""
    url = with_query_token(httpx.URL("https://api.example/").copy_with(query=query.encode()), "access_token", token)
    assert [token] == parse_qs(url.query.decode())["access_token"]
