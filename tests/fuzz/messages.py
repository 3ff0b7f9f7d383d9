"""Inputs that are HTTP responses: a status, header lines, an empty line and a body; and a client that receives them."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from tokenmw.providers.http import NestedTokens

__all__ = ["LIMITS", "NOW", "Message", "read_message", "run", "token_http"]

NOW = 1_795_164_577.0
"""Friday, 20 November 2026, 08:49:37 GMT."""

LIMITS = Limits()
_LONGEST_HEAD = 1 << 16  # bytes; HTTP clients read no more


class Message(NamedTuple):
    """The response of a server."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def read_message(data: bytes) -> Message:
    """Parse an input; every input is a valid message."""
    head, _, body = data.partition(b"\n\n")
    head = head[:_LONGEST_HEAD]
    first, *lines = head.split(b"\n")
    digits = first[:3]
    status = int(digits) if len(digits) == 3 and digits.isdigit() and digits >= b"100" else 200
    pairs = (line.partition(b":") for line in lines)
    # What h11 accepts: a name is a token, and a value has no line break.
    headers = [(name, value.strip()) for name, _, value in pairs if name.replace(b"-", b"").isalnum()]
    return Message(status, [line for line in headers if not set(line[1]) & set(b"\r\0")], body)


class _Body(httpx.AsyncByteStream):
    """A body that is received in two chunks."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        half = len(self._body) // 2
        yield self._body[:half]
        yield self._body[half:]


class Wire(httpx.AsyncBaseTransport):
    """Answers every request with one message."""

    def __init__(self) -> None:
        self.message = Message(200, [], b"")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = self.message
        return httpx.Response(status, headers=headers, stream=_Body(body), request=request)


@functools.cache
def _wire() -> tuple[Wire, httpx.AsyncClient, ManualClock]:
    wire = Wire()
    return wire, httpx.AsyncClient(transport=wire, trust_env=False), ManualClock(NOW)


def token_http(message: Message, *, nested: NestedTokens | None = None) -> TokenHTTP:
    """Make what providers get, whose next responses are this message."""
    wire, client, clock = _wire()
    wire.message = message
    return TokenHTTP(client, limits=LIMITS, clock=clock, nested=nested)


@functools.cache
def _runner(_process: int) -> asyncio.Runner:
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in an event loop that all inputs share, because creating one for each input is slow."""
    return _runner(os.getpid()).run(work)
