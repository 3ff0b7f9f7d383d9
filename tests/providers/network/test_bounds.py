"""Answers that are made to cost time: the event loop runs other tasks in between, and the request ends early."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.providers.network.servers import GRANT, listening
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.providers.http_client import default_client

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

MAX_TURN = 0.04
"""Processor seconds of one turn of the event loop. Without bounds the answers below take 0.08 to 0.46 s of one turn."""
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def one_byte_chunks(client: socket.socket) -> None:
    """Send 64 KiB in chunks of one byte."""
    client.sendall(CHUNKED + b"1\r\n \r\n" * 65_536 + b"2\r\n{}\r\n0\r\n\r\n")


def informational(client: socket.socket) -> None:
    """Send informational responses without end."""
    while True:
        client.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4096)


def header_lines(client: socket.socket) -> None:
    """Send 10 000 header lines."""
    client.sendall(OK + b"".join(b"a%d: b\r\n" % number for number in range(10_000)) + b"content-length: 2\r\n\r\n{}")


def chunk_extensions(client: socket.socket) -> None:
    """Send chunks of one byte with 90 000 bytes of extensions, without end."""
    client.sendall(CHUNKED)
    while True:
        client.sendall(b"1;" + b"x" * 90_000 + b"\r\n \r\n")


def trailers(client: socket.socket) -> None:
    """Send a whole answer, and 15 000 header lines behind it."""
    client.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 15_000 + b"\r\n")


@contextlib.contextmanager
def in_thread(send: Callable[[socket.socket], None]) -> Generator[str]:
    """Answer one connection in a thread, so that the event loop's time is that of the client alone."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = server.accept()
            with client:
                client.settimeout(10)
                client.recv(65_536)
                send(client)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(20)


class Turns:
    """Measures the longest turn of the event loop, in processor seconds of its thread."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._measure())
        await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _measure(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - began)


@pytest.mark.parametrize(
    ("send", "text"),
    [
        (one_byte_chunks, "sent its response in more than 4096 pieces"),
        (informational, "sent more than 256 lines or 32768 bytes of header lines, informational responses"),
        (header_lines, "sent more than 256 lines or 32768 bytes"),
        (chunk_extensions, "sent more than 256 lines or 32768 bytes"),
        (trailers, "sent more than 256 lines or 32768 bytes"),
    ],
)
async def test_costly_answers_end_early_and_leave_the_loop_its_turns(
    our_http: TokenHTTP, send: Callable[[socket.socket], None], text: str
) -> None:
    """No turn of the event loop takes long, and the request ends with an error that names what was sent."""
    with in_thread(send) as url:
        await warm_up(our_http)
        async with Turns() as turns:
            with pytest.raises(TokenUnavailable, match=text):
                await asyncio.wait_for(our_http.request("POST", url), 4)
    assert turns.longest < MAX_TURN


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_clients_of_the_program_have_bounded_pieces(library: str) -> None:
    """With a client of the program, too, a body in small pieces ends early, and the event loop runs in between."""
    module = pytest.importorskip(library)
    async with module.AsyncClient(trust_env=False) as client:
        http = TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
        with in_thread(one_byte_chunks) as url:
            await warm_up(http)
            async with Turns() as turns:
                with pytest.raises(TokenUnavailable, match="in more than 4096 pieces"):
                    await asyncio.wait_for(http.request("POST", url), 4)
    assert turns.longest < MAX_TURN


async def warm_up(http: TokenHTTP) -> None:
    """Send a request, so that the libraries have loaded what they need."""
    with in_thread(lambda client: client.sendall(GRANT)) as url:
        await http.request("POST", url)


@pytest.mark.parametrize(
    "response",
    [
        GRANT,
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 20 + GRANT,
        OK + b"".join(b"x-%d: %s\r\n" % (number, b"y" * 150) for number in range(90)) + b"content-length: 2\r\n\r\n{}",
        CHUNKED + b"100;a=b\r\n" + b" " * 256 + b"\r\n2\r\n{}\r\n0\r\nx-trailer: 1\r\n\r\n",
        OK + b"content-length: 60002\r\n\r\n" + b"    \n" * 12_000 + b"{}",
        OK + b"content-length: 65536\r\n\r\n" + b" " * 65_534 + b"{}",
    ],
    ids=["grant", "early hints", "90 header lines", "extensions and trailers", "many lines", "64 KiB"],
)
async def test_unusual_answers_are_read(our_http: TokenHTTP, response: bytes) -> None:
    """What servers really send is within the bounds."""
    with in_thread(lambda client: client.sendall(response)) as url:
        assert isinstance((await our_http.request("POST", url)).json(), dict)


async def test_an_answer_is_bounded_on_the_wire() -> None:
    """A body that is within `answer_bytes`, with much more framing around it, is cut off."""
    limits = Limits(answer_bytes=1000)
    http = TokenHTTP(default_client(limits=limits), limits=limits, clock=SYSTEM_CLOCK)

    def send(client: socket.socket) -> None:
        client.sendall(CHUNKED + (b"1;" + b"x" * 2000 + b"\r\n \r\n") * 900)

    with (
        in_thread(send) as url,
        pytest.raises(TokenUnavailable, match=r"sent more than 1000 bytes .* and their framing"),
    ):
        await http.request("POST", url)
    await http.aclose()


async def test_connections_are_used_again(our_http: TokenHTTP) -> None:
    """Requests to one server share a connection; the bounds count for each answer anew."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"x: y\r\n" * 100 + b"content-length: 2\r\n\r\n{}")
            await writer.drain()

    async with listening(serve) as port:
        for _ in range(5):
            assert {} == (await our_http.request("POST", f"http://127.0.0.1:{port}/")).json()
    assert 1 == connections


async def test_bytes_behind_an_answer_are_not_the_next_one(our_http: TokenHTTP) -> None:
    """A connection on which more arrived than one answer is closed: the rest would answer another tenant's request."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            extra = OK + b"content-length: 14\r\n\r\n" + b'{"foreign": 1}' + b"\n" * 70
            writer.write(OK + b"content-length: 2\r\n\r\n{}" + extra)
            await writer.drain()

    async with listening(serve) as port:
        for _ in range(3):
            assert {} == (await our_http.request("POST", f"http://127.0.0.1:{port}/")).json()
    assert 3 == connections
