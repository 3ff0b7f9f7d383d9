from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.providers.conftest import LIMITS
from tests.providers.wire import http_answer, wire
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.providers.http import TokenHTTP
from tokenmw.testing import Fault, ProviderServer

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]
BOUND = LIMITS.answer_bytes
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def forever(writer: asyncio.StreamWriter) -> None:
    """Send an endless body as fast as it is read."""
    writer.write(CHUNKED)
    while True:
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await writer.drain()


async def slowly(writer: asyncio.StreamWriter) -> None:
    """Send single bytes, often enough that no read time-out fires."""
    writer.write(CHUNKED)
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def slow_head(writer: asyncio.StreamWriter) -> None:
    """Send endless header lines."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def never(writer: asyncio.StreamWriter) -> None:
    """Read the request and send no response."""
    await asyncio.sleep(60)


@pytest.mark.parametrize("answer", [slowly, slow_head, never])
async def test_slow_endpoint_costs_one_deadline(client: Any, answer: Respond) -> None:
    """One deadline covers the whole request: connecting, head and body."""
    http = TokenHTTP(client, limits=replace(LIMITS, fetch_seconds=0.3), clock=SYSTEM_CLOCK)
    async with wire(answer) as server:
        began = time.monotonic()
        with pytest.raises(TokenUnavailable, match=r"did not answer within 0\.3 s \(read timeout\)"):
            await asyncio.wait_for(http.request("POST", server.url, data={"a": "b"}), 5)
        took = time.monotonic() - began
    # Far below the duration of any of these responses, far above the delay of a loaded machine.
    assert 0.25 < took < 4


async def late(writer: asyncio.StreamWriter) -> None:
    """Respond 0.1 s before the end of `fetch_seconds`."""
    await asyncio.sleep(1.4)
    writer.write(http_answer(200, body=b"{}"))


async def test_an_endpoint_has_nearly_all_of_fetch_seconds(client: Any) -> None:
    """A response that arrives shortly before `fetch_seconds` are over is read."""
    http = TokenHTTP(client, limits=replace(LIMITS, fetch_seconds=1.5), clock=SYSTEM_CLOCK)
    async with wire(late) as server:
        assert 200 == (await http.request("POST", server.url, data={"a": "b"})).status


async def test_endless_body_is_cut_off(http: TokenHTTP) -> None:
    """Reading stops at the bound, and the connection is closed."""
    async with wire(forever) as server:
        with pytest.raises(TokenUnavailable, match=rf"sent more than {BOUND} bytes \(Limits.answer_bytes\)"):
            await http.request("POST", server.url)
        async with asyncio.timeout(5):
            await server.closed.wait()


@pytest.mark.parametrize(("size", "fits"), [(0, True), (BOUND, True), (BOUND + 1, False)])
@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
async def test_bound_counts_decoded_bytes(http: TokenHTTP, size: int, coding: str, *, fits: bool) -> None:
    """Compressed or not, the bound applies to the decoded body."""
    plain = b"a" * size
    body = {"identity": plain, "gzip": gzip.compress(plain), "deflate": zlib.compress(plain)}[coding]
    async with wire(http_answer(200, headers=f"content-encoding: {coding}\r\n", body=body)) as server:
        if fits:
            assert plain == (await http.request("POST", server.url)).body
        else:
            with pytest.raises(TokenUnavailable, match="sent more than"):
                await http.request("POST", server.url)


async def test_decompression_bomb_is_never_inflated(http: TokenHTTP) -> None:
    """Nine kilobytes that inflate to nine megabytes cost neither memory nor time."""
    bomb = gzip.compress(b"\0" * 9_000_000)
    assert len(bomb) < BOUND
    async with wire(http_answer(200, headers="content-encoding: gzip\r\n", body=bomb)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(TokenUnavailable, match="sent more than"):
                await http.request("POST", server.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("coding", "body", "why"),
    [
        ("br", b"whatever", "was not asked for"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), "was not asked for"),
        ("gzip", b"no gzip at all", "cut off or broken"),
        ("gzip", gzip.compress(b"x" * 1000)[:-9], "cut off or broken"),
    ],
    ids=["unknown", "two codings", "no gzip", "cut off"],
)
async def test_unreadable_coding_is_an_error(http: TokenHTTP, coding: str, body: bytes, why: str) -> None:
    """An unknown, broken or cut-off compression raises `TokenUnavailable`."""
    async with wire(http_answer(200, headers=f"content-encoding: {coding}\r\n", body=body)) as server:
        with pytest.raises(TokenUnavailable, match=why):
            await http.request("POST", server.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        CHUNKED + b"zz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
    ],
    ids=["nothing", "half a body", "bad chunk", "other protocol", "endless header"],
)
async def test_broken_responses_are_unavailability(http: TokenHTTP, answer: bytes) -> None:
    """Bytes that are not an HTTP response raise `TokenUnavailable`."""
    async with wire(answer) as server:
        with pytest.raises(TokenUnavailable, match=r"did not answer \((closed|protocol|reset)\)"):
            await http.request("POST", server.url)


async def test_connection_closed_by_a_real_server_is_unavailability(http: TokenHTTP) -> None:
    """A connection that the server closes raises `TokenUnavailable`, and the next request succeeds."""
    server = ProviderServer()
    server.oauth2.script.then(Fault(close=True), Fault(body={"a": 1}))
    with server.running() as base_url:
        with pytest.raises(TokenUnavailable, match=r"did not answer \((closed|reset)\)"):
            await http.request("POST", f"{base_url}/oauth2/token")
        assert {"a": 1} == (await http.request("POST", f"{base_url}/oauth2/token")).json()
