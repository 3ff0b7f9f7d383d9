"""What is read of an answer to find a rejection: bounded in bytes, inflated bytes, pieces and time."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from starlette.responses import Response

from tests.outgoing.conftest import API, Numbered
from tokenmw import TokenBroker
from tokenmw.outgoing import read_ahead
from tokenmw.testing import ManualClock

JSON = "application/json"
REJECTION = b'{"errcode": 40014, "errmsg": "invalid access_token"}'
MANY = 64 << 20  # bytes after inflating


def stream_of(library: Any, parts: AsyncIterator[bytes]) -> Any:
    """Return a response's stream over parts."""

    class Parts(library.AsyncByteStream):  # type: ignore[misc]
        def __aiter__(self) -> AsyncIterator[bytes]:
            return parts

        async def aclose(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    made: Any = Parts()
    made.closed = closed
    return made


def client_of(library: Any, stream: Any, **headers: str) -> Any:
    """Return a client whose every response has that stream and headers."""
    lines = {"content-type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}

    def answer(_request: Any) -> Any:
        return library.Response(200, headers=lines, stream=stream)

    return library.AsyncClient(transport=library.MockTransport(answer))


async def once(*parts: bytes) -> AsyncGenerator[bytes]:
    """Yield parts."""
    for part in parts:
        yield part


@pytest.fixture
def provider() -> Numbered:
    """A provider whose API rejects tokens in the body."""
    return Numbered(reads_body=True, hosts=None)


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "deflate", "x-gzip", "br", "zstd"])
async def test_small_body_is_not_inflated_without_bound(
    broker: TokenBroker, library: Any, provider: Numbered, *, coding: str
) -> None:
    """An answer that inflates to 64 MiB, or to more in two steps, costs less than 1 MiB; the program gets its bytes."""
    body = zlib.compress(bytes(MANY), 9) if coding == "deflate" else gzip.compress(bytes(MANY), 9)
    if coding not in ("gzip", "deflate", "x-gzip"):
        body = gzip.compress(body, 9)
    async with client_of(library, stream_of(library, once(body)), content_encoding=coding) as http:
        await broker.token(provider)
        tracemalloc.start()
        try:
            async with http.stream("GET", "https://api.example/x", auth=broker.auth(provider)) as answer:
                _, peak = tracemalloc.get_traced_memory()
                assert body == b"".join([part async for part in answer.aiter_raw()])
        finally:
            tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip"])
async def test_rejection_s_body_is_not_inflated_for_the_retry(
    broker: TokenBroker, http: Any, api: API, *, clock: ManualClock, coding: str
) -> None:
    """The client reads the first answer before it sends the retry; what would inflate to 64 MiB is left out."""
    body = gzip.compress(bytes(MANY), 9)
    body = gzip.compress(body, 9) if "," in coding else body
    api.refused.add("t-1")
    api.refuse = lambda request: Response(body, 401, headers={"content-encoding": coding}, media_type=JSON)
    provider = Numbered()
    await broker.token(provider)
    clock.advance(10)
    tracemalloc.start()
    try:
        answer = await http.get("/x", auth=broker.auth(provider))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ({"token": "t-2"}, b"") == (answer.json(), answer.history[0].content)
    assert peak < 8 << 20  # the server runs in this process, too


@pytest.mark.parametrize("size", [60_000, 70_000])
async def test_rejection_may_inflate_to_64_kib(
    broker: TokenBroker, http: Any, api: API, *, clock: ManualClock, size: int
) -> None:
    """A compressed rejection of up to 64 KiB is found, and no longer one."""
    body = gzip.compress(REJECTION + b" " * size)
    api.refused.add("t-1")
    api.refuse = lambda request: Response(body, headers={"content-encoding": "GZIP"}, media_type=JSON)
    provider = Numbered(reads_body=True)
    await broker.token(provider)
    clock.advance(10)
    answer = await http.get("/x", auth=broker.auth(provider))
    assert (["t-1", "t-2"] if size < 64 << 10 else ["t-1"]) == api.seen
    assert size > 64 << 10 or 40014 == answer.history[0].json()["errcode"]


@pytest.mark.parametrize("parts", [100, 100_000])
async def test_one_byte_parts_are_bounded(broker: TokenBroker, library: Any, provider: Numbered, *, parts: int) -> None:
    """Of an answer in parts of one byte, at most 256 are read ahead; the program gets all of them."""
    taken: list[int] = []

    async def drops() -> AsyncGenerator[bytes]:
        for number in range(parts):
            taken.append(number)
            yield b" "

    async with client_of(library, stream_of(library, drops())) as http:
        await broker.token(provider)
        async with http.stream("GET", "https://api.example/x", auth=broker.auth(provider)) as answer:
            assert min(parts, 256) == len(taken)
            assert parts == len(await answer.aread())


@pytest.mark.parametrize("pause", ["in one part", "between parts"])
async def test_slow_body_does_not_delay_the_response(
    broker: TokenBroker, library: Any, provider: Numbered, *, pause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time limit the program gets the response, and then every part, in order and once."""
    monkeypatch.setattr(read_ahead, "_MAX_SECONDS", 0.1)
    go_on = asyncio.Event()

    async def slow() -> AsyncGenerator[bytes]:
        yield b"a"
        yield b"b"
        if pause == "in one part":
            await go_on.wait()
        else:
            while not go_on.is_set():
                await asyncio.sleep(0.02)
                yield b""
        yield b"c"
        yield b"d"

    stream = stream_of(library, slow())
    async with client_of(library, stream) as http:
        await broker.token(provider)
        begin = time.monotonic()
        async with http.stream("GET", "https://api.example/x", auth=broker.auth(provider)) as answer:
            assert time.monotonic() - begin < 5
            parts = answer.aiter_raw()
            assert b"ab" == await anext(parts)
            go_on.set()
            assert b"cd" == b"".join([part async for part in parts])
        assert answer.is_closed
        assert stream.closed


@pytest.mark.parametrize("leaves", ["before reading", "while reading"])
async def test_leaving_a_slow_response_closes_it(
    broker: TokenBroker, library: Any, provider: Numbered, *, leaves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read that is under way is cancelled, the stream is closed, and no task is left."""
    monkeypatch.setattr(read_ahead, "_MAX_SECONDS", 0.05)
    never, cancelled = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncGenerator[bytes]:
        yield b"{"
        try:
            await never.wait()
        finally:
            cancelled.set()

    stream = stream_of(library, slow())
    async with client_of(library, stream) as http:
        await broker.token(provider)
        async with http.stream("GET", "https://api.example/x", auth=broker.auth(provider)) as answer:
            if leaves == "while reading":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await answer.aread()
        assert cancelled.is_set()
        assert stream.closed
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "tokenmw reading a response"]


async def test_cancelled_request_cancels_the_read(broker: TokenBroker, library: Any, provider: Numbered) -> None:
    """A program that gives up while the body is read ahead leaves no task and no open stream."""
    never, cancelled = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncGenerator[bytes]:
        yield b"{"
        try:
            await never.wait()
        finally:
            cancelled.set()

    stream = stream_of(library, slow())
    async with client_of(library, stream) as http:
        await broker.token(provider)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await http.get("https://api.example/x", auth=broker.auth(provider))
        assert cancelled.is_set()
        assert stream.closed


async def test_late_error_is_the_client_s(
    broker: TokenBroker, library: Any, provider: Numbered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks after the time limit is the client's error, where the program reads the body."""
    monkeypatch.setattr(read_ahead, "_MAX_SECONDS", 0.05)

    async def slow() -> AsyncGenerator[bytes]:
        yield b"{"
        await asyncio.sleep(0.1)
        raise library.ReadError("broken")

    async with client_of(library, stream_of(library, slow())) as http:
        await broker.token(provider)
        async with http.stream("GET", "https://api.example/x", auth=broker.auth(provider)) as answer:
            with pytest.raises(library.ReadError) as caught:
                await answer.aread()
    assert "/x" == caught.value.request.url.path


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_answer_without_a_body_is_not_read(
    broker: TokenBroker, library: Any, provider: Numbered, *, method: str, status: int
) -> None:
    """Whatever its headers say of a body, none follows."""
    read: list[bool] = []

    async def body() -> AsyncGenerator[bytes]:
        read.append(True)
        yield REJECTION

    def answer(_request: Any) -> Any:
        headers = {"content-type": JSON, "content-length": "40"}
        return library.Response(status, headers=headers, stream=stream_of(library, body()))

    http = library.AsyncClient(transport=library.MockTransport(answer))
    async with http, http.stream(method, "https://api.example/x", auth=broker.auth(provider)) as received:
        assert (status, []) == (received.status_code, read)


async def test_error_while_a_rejection_is_discarded_does_not_prevent_the_retry(
    broker: TokenBroker, library: Any, clock: ManualClock
) -> None:
    """The body of the first answer is not needed, so the request is sent again although that body breaks off."""
    seen: list[str] = []

    async def broken() -> AsyncGenerator[bytes]:
        yield b"{"
        raise library.ReadError("broken")

    def answer(request: Any) -> Any:
        seen.append(request.headers["authorization"])
        return library.Response(401, stream=stream_of(library, broken())) if len(seen) == 1 else library.Response(200)

    provider = Numbered(hosts=None)
    await broker.token(provider)
    clock.advance(10)
    async with library.AsyncClient(transport=library.MockTransport(answer)) as http:
        assert 200 == (await http.get("https://api.example/x", auth=broker.auth(provider))).status_code
    assert ["Bearer t-1", "Bearer t-2"] == seen
