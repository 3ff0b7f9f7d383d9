"""What a token endpoint says of what it was sent stays out of the clients' logs, at DEBUG as well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.providers.http import default_client

SECRET = "s3cr3t-of-the-client"


@asynccontextmanager
async def server(answer: bytes) -> AsyncGenerator[str]:
    """Answer each request with these bytes, and close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/token"


def token_http(client: Any) -> TokenHTTP:
    """Make what providers ask through."""
    return TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("status", ["302 Found", "401 Unauthorized", "503 Busy"])
async def test_of_an_answer_the_status_alone_is_logged(
    library: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not its headers, which may repeat the secret; whoever asked gets them all."""
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
async def test_of_a_broken_answer_the_kind_of_error_alone_is_logged(
    library: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error itself quotes the line that is no header."""
    caplog.set_level(logging.DEBUG)
    module = pytest.importorskip(library)
    async with server(f"HTTP/1.1 200 OK\r\nno header {SECRET}\r\n\r\n".encode()) as url, module.AsyncClient() as client:
        with pytest.raises(TokenUnavailable, match="RemoteProtocolError"):
            await token_http(client).request("GET", url)
    assert "receive_response_headers.failed exception='RemoteProtocolError'" in caplog.text
    assert SECRET not in caplog.text


async def test_our_own_client_logs_no_words_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """The words beside the status are the server's to choose; its log has those of the standard."""
    caplog.set_level(logging.DEBUG)
    async with server(f"HTTP/1.1 429 {SECRET}\r\ncontent-length: 0\r\n\r\n".encode()) as url:
        client = default_client()
        async with client:
            assert 429 == (await token_http(client).request("GET", url)).status
    assert '"HTTP/1.1 429 Too Many Requests"' in caplog.text
    assert SECRET not in caplog.text
