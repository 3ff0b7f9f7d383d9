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

REFUSAL = b'{"errcode": 40014, "errmsg": "invalid access_token"}'


@pytest.fixture
async def provider(broker: TokenBroker, clock: ManualClock, api: API) -> Numbered:
    """Its API says in the body that a token is not valid, with HTTP 200, and does so for the one in use."""
    provider = Numbered(reads_body=True)
    await broker.token(provider)
    clock.advance(10)
    api.refused.add("t-1")
    api.refuse = lambda request: Response(REFUSAL, media_type="application/json; charset=UTF-8")
    return provider


@pytest.mark.parametrize(
    "refusal",
    [
        Response(REFUSAL, media_type="application/json"),
        Response(REFUSAL, media_type="application/problem+json"),
        Response(REFUSAL, media_type="text/plain"),
        Response(REFUSAL, media_type="text/html"),
        Response(REFUSAL),
        Response(gzip.compress(REFUSAL), media_type="application/json", headers={"content-encoding": "gzip"}),
        "in parts",
    ],
)
async def test_refusal_in_the_body_is_read(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, refusal: Response | str
) -> None:
    """Whatever such APIs call their JSON, compressed or in parts; in a stream as in a plain request."""
    api.refuse = lambda request: (
        refusal if isinstance(refusal, Response) else chunks(REFUSAL[:9], REFUSAL[9:], media_type="application/json")
    )
    async with http.stream("POST", "/x", json={}, auth=broker.auth(provider)) as answer:
        assert b'{"token":"t-2"}' == b"".join([part async for part in answer.aiter_raw()])
    assert ["t-1", "t-2"] == api.seen


@pytest.mark.parametrize("body", [REFUSAL, b'{"errcode": 0, "list": [1, 2]}', b"{", b""])
async def test_what_was_read_can_be_read(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, body: bytes
) -> None:
    """By the caller, in each of the client's ways, whatever it was; garbage is no refusal."""
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
async def test_download_is_not_read(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, media_type: str
) -> None:
    """Its first part is here while the server still holds back the second one."""
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


async def test_long_json_is_not_held(broker: TokenBroker, http: Any, api: API, provider: Numbered) -> None:
    """Of JSON without a length 64 KiB are looked at, then it streams on: a refusal is never so long."""
    total = 40
    api.refuse = lambda request: chunks(REFUSAL, *[b" " * 10_000] * total, media_type="application/json")
    async with http.stream("GET", "/x", auth=broker.auth(provider)) as answer:
        assert len(REFUSAL) + total * 10_000 == sum([len(part) async for part in answer.aiter_raw()])
    api.refuse = lambda request: Response(REFUSAL + b" " * 100_000, media_type="application/json")
    assert len(REFUSAL) + 100_000 == len((await http.get("/x", auth=broker.auth(provider))).content)
    assert ["t-1", "t-1"] == api.seen


async def test_refusal_without_an_end_holds_up_nothing(
    broker: TokenBroker, http: Any, api: API, clock: ManualClock
) -> None:
    """Its connection is closed, and the request is sent once more."""
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
    """What was looked at and not read to its end holds no connection."""
    api.refused.clear()
    api.accept = lambda request: chunks(*[b" " * 10_000] * 100, media_type="application/json")
    limits = library.Limits(max_connections=1)
    async with library.AsyncClient(base_url=base_url, trust_env=False, limits=limits, timeout=20) as http:
        for _ in range(3):
            async with http.stream("GET", "/x", auth=broker.auth(provider)) as answer:
                assert 200 == answer.status_code
            assert answer.is_closed


async def test_answer_that_breaks_off_is_the_client_s_error(
    broker: TokenBroker, http: Any, library: Any, api: API, provider: Numbered
) -> None:
    """With the request, as the client's own errors have it."""

    async def parts() -> AsyncGenerator[bytes]:
        yield b'{"errcode"'
        raise ConnectionResetError

    api.refuse = lambda request: StreamingResponse(parts(), media_type="application/json")
    with pytest.raises(library.RemoteProtocolError) as caught:
        await http.get("/x", auth=broker.auth(provider))
    assert "/x" == caught.value.request.url.path


@pytest.mark.parametrize("keeps", [True, False])
async def test_answer_that_a_hook_has_read(
    broker: TokenBroker, http: Any, api: API, provider: Numbered, *, keeps: bool
) -> None:
    """Is judged by what the hook has kept; what it has thrown away is nobody's any more."""

    async def hook(response: Any) -> None:
        if keeps:
            await response.aread()
        else:
            assert [part async for part in response.aiter_raw()]

    http.event_hooks["response"] = [hook]
    async with http.stream("GET", "/x", auth=broker.auth(provider)):
        pass
    assert (["t-1", "t-2"] if keeps else ["t-1"]) == api.seen


async def test_broken_compression_is_the_caller_s_to_see(
    broker: TokenBroker, http: Any, library: Any, api: API, provider: Numbered
) -> None:
    """It is no refusal, and the client says what is wrong with it."""

    def refuse(request: Request) -> Response:
        return Response(b"no gzip", media_type="application/json", headers={"content-encoding": "gzip"})

    api.refuse = refuse
    with pytest.raises(library.DecodingError):
        await http.get("/x", auth=broker.auth(provider))
    assert ["t-1"] == api.seen
