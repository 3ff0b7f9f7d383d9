"""Reading the body of an answer for a rejection must not change or delay what the caller gets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.outgoing.conftest import API, Numbered, chunks
from tokenmw import TokenBroker
from tokenmw.testing import ManualClock

REJECTION = b'{"errcode": 40014, "errmsg": "invalid access_token"}'


@pytest.fixture
async def provider(broker: TokenBroker, clock: ManualClock, api: API) -> Numbered:
    """A provider whose API rejects the current token in the body, with HTTP 200."""
    provider = Numbered(reads_body=True)
    await broker.token(provider)
    clock.advance(10)
    api.refused.add("t-1")
    api.refuse = lambda request: Response(REJECTION, media_type="application/json; charset=UTF-8")
    return provider


@pytest.mark.parametrize(
    "rejection",
    [
        Response(REJECTION, media_type="application/json"),
        Response(REJECTION, media_type="application/problem+json"),
        Response(REJECTION, media_type="text/plain"),
        Response(REJECTION, media_type="text/html"),
        Response(REJECTION),
        Response(gzip.compress(REJECTION), media_type="application/json", headers={"content-encoding": "gzip"}),
        "in parts",
    ],
)
async def test_rejection_in_the_body_is_read(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, rejection: Response | str
) -> None:
    """A rejection is found under every content type that APIs use for JSON, compressed or in parts, also in streams."""
    api.refuse = lambda request: (
        rejection
        if isinstance(rejection, Response)
        else chunks(REJECTION[:9], REJECTION[9:], media_type="application/json")
    )
    async with http.stream("POST", "/x", json={}, auth=broker.auth(provider)) as answer:
        assert b'{"token":"t-2"}' == b"".join([part async for part in answer.aiter_raw()])
    assert ["t-1", "t-2"] == api.seen


@pytest.mark.parametrize("body", [REJECTION, b'{"errcode": 0, "list": [1, 2]}', b"{", b""])
async def test_body_that_was_read_can_be_read_again(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, body: bytes
) -> None:
    """The caller can read the body in each of the client's ways; an invalid body is no rejection."""
    api.refused.clear()
    api.accept = lambda request: chunks(body[:5], body[5:], media_type="application/json")
    auth = broker.auth(provider)
    assert body == (await http.get("/x", auth=auth)).content
    for way in ("aiter_raw", "aiter_bytes"):
        async with http.stream("GET", "/x", auth=auth) as answer:
            assert body == b"".join([part async for part in getattr(answer, way)()])
        assert answer.is_closed
        assert answer.elapsed.total_seconds() >= 0


@pytest.mark.parametrize("media_type", ["application/octet-stream", "text/event-stream", "text/plain", "image/png"])
async def test_download_is_not_delayed(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, media_type: str
) -> None:
    """The caller gets the first part while the server still holds back the second one."""
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def parts() -> AsyncGenerator[bytes]:
        yield b"one"
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go_on.wait(), loop))
        yield b"two"

    api.refused.clear()
    api.accept = lambda request: StreamingResponse(parts(), media_type=media_type)
    async with asyncio.timeout(30), http.stream("GET", "/x", auth=broker.auth(provider)) as answer:
        stream = answer.aiter_raw()
        assert b"one" == await anext(stream)
        go_on.set()
        assert b"two" == b"".join([part async for part in stream])


async def test_long_json_is_not_buffered(broker: TokenBroker, http: Any, api: API, provider: Numbered) -> None:
    """At most 64 KiB of JSON without a length are read ahead; a rejection is never that long."""
    total = 40
    api.refuse = lambda request: chunks(REJECTION, *[b" " * 10_000] * total, media_type="application/json")
    async with http.stream("GET", "/x", auth=broker.auth(provider)) as answer:
        assert len(REJECTION) + total * 10_000 == sum([len(part) async for part in answer.aiter_raw()])
    api.refuse = lambda request: Response(REJECTION + b" " * 100_000, media_type="application/json")
    assert len(REJECTION) + 100_000 == len((await http.get("/x", auth=broker.auth(provider))).content)
    assert ["t-1", "t-1"] == api.seen


async def test_endless_rejection_does_not_delay_the_retry(
    broker: TokenBroker, http: Any, api: API, clock: ManualClock
) -> None:
    """The connection of a rejection that never ends is closed, and the request is sent once more."""
    provider = Numbered()
    never = asyncio.Event()

    async def parts() -> AsyncGenerator[bytes]:
        yield b" " * 100_000
        await never.wait()

    await broker.token(provider)
    clock.advance(10)
    api.refused.add("t-1")
    api.refuse = lambda request: StreamingResponse(parts(), 401)
    async with asyncio.timeout(30):
        assert {"token": "t-2"} == (await http.get("/x", auth=broker.auth(provider))).json()


async def test_leaving_a_long_answer_closes_it(
    broker: TokenBroker, library: Any, base_url: str, api: API, provider: Numbered
) -> None:
    """An answer that was read ahead in part releases its connection when the caller leaves it."""
    api.refused.clear()
    api.accept = lambda request: chunks(*[b" " * 10_000] * 100, media_type="application/json")
    limits = library.Limits(max_connections=1)
    async with library.AsyncClient(base_url=base_url, trust_env=False, limits=limits, timeout=20) as http:
        for _ in range(3):
            async with http.stream("GET", "/x", auth=broker.auth(provider)) as answer:
                assert 200 == answer.status_code
            assert answer.is_closed


async def test_incomplete_answer_is_the_client_s_error(
    broker: TokenBroker, http: Any, library: Any, api: API, provider: Numbered
) -> None:
    """The error has its request, like the client's own errors."""

    async def parts() -> AsyncGenerator[bytes]:
        yield b'{"errcode"'
        raise ConnectionResetError

    api.refuse = lambda request: StreamingResponse(parts(), media_type="application/json")
    with pytest.raises(library.RemoteProtocolError) as caught:
        await http.get("/x", auth=broker.auth(provider))
    assert "/x" == caught.value.request.url.path


@pytest.mark.parametrize("keeps", [True, False])
async def test_answer_that_a_hook_read(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, keeps: bool
) -> None:
    """A body that a hook read and kept is checked; a body that it threw away cannot be."""

    async def hook(response: Any) -> None:
        if keeps:
            await response.aread()
        else:
            assert [part async for part in response.aiter_raw()]

    http.event_hooks["response"] = [hook]
    async with http.stream("GET", "/x", auth=broker.auth(provider)):
        pass
    assert (["t-1", "t-2"] if keeps else ["t-1"]) == api.seen


async def test_invalid_compression_is_the_client_s_error(
    broker: TokenBroker, http: Any, library: Any, api: API, provider: Numbered
) -> None:
    """A body that cannot be decompressed is no rejection, and the caller gets the client's error."""

    def refuse(request: Request) -> Response:
        return Response(b"no gzip", media_type="application/json", headers={"content-encoding": "gzip"})

    api.refuse = refuse
    with pytest.raises(library.DecodingError):
        await http.get("/x", auth=broker.auth(provider))
    assert ["t-1"] == api.seen
