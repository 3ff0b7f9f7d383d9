"""How connections are made and read: addresses are chosen here, and hostile answers are bounded here.

httpcore calls `Backend.connect_tcp` with the host of a URL (https://www.encode.io/httpcore/network-backends/). The name
is resolved once, the addresses are checked, and only those addresses are connected to, so a name server that answers
differently a moment later changes nothing. TLS still verifies the certificate for the name.

httpcore reads up to 64 KiB at a time and parses them without a pause: thousands of informational responses, header
lines or chunks of one byte, each 20 to 60 µs of the event loop. What costs time is lines. So `BoundedStream` hands out
few lines at a time, lets the event loop run in between, and counts what is handed out without any result.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast

import httpcore

from tokenmw.providers.answer import UnusableAnswer
from tokenmw.providers.network.addresses import is_public
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from tokenmw.providers.network.resolver import Resolver

__all__ = ["Backend", "BoundedStream"]

_Stream = httpcore.AsyncNetworkStream

_MAX_ADDRESSES: Final = 8  # of one host that are tried
_NEXT_ADDRESS: Final = 0.25  # seconds until the next address is tried beside the first (RFC 8305 §5)
_LOOKUP_SHARE: Final = 0.8  # of the time for connecting, so that a lookup that is too slow has an error of its own

_READ_BYTES: Final = 16_384
_PIECE_LINES: Final = 64
# Between two results, which are the response's head and each piece of its body. Servers send 5 to 40 header lines.
_MAX_LINES: Final = 256
_MAX_BYTES: Final = 32_768
_MAX_FRAMING: Final = 65_536  # bytes of a whole answer beside twice its permitted body


class Backend(httpcore.AsyncNetworkBackend):
    """Connects for one pool.

    Args:
        resolver: Resolves the names.
        only_public: Whether private addresses are refused.
        body_bytes: The longest body of an answer.
    """

    def __init__(self, resolver: Resolver, *, only_public: bool, body_bytes: int) -> None:
        self._resolver = resolver
        self._only_public = only_public
        self._body_bytes = body_bytes
        self._plain = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())  # anyio is installed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            httpcore.ConnectError: The name does not resolve, or no address accepts a connection. The cause says why.
            httpcore.ConnectTimeout: None has answered in time.
            UnusableAnswer: The host has private addresses only, and they are refused.
        """

        async def connect(address: str) -> httpcore.AsyncNetworkStream:
            return await self._plain.connect_tcp(
                address, port, local_address=local_address, socket_options=socket_options
            )

        try:
            async with asyncio.timeout(timeout):
                addresses = await self._addresses(host, seconds=timeout)
                stream = await _first(addresses, connect)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("no address has answered") from error
        return BoundedStream(stream, body_bytes=self._body_bytes)

    async def sleep(self, seconds: float) -> None:
        """Wait. httpcore calls it between its own retries, of which there are none here."""
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, *, seconds: float | None) -> Sequence[str]:
        addresses = (host,) if _is_address(host) else await self._resolve(host, seconds=seconds)
        if self._only_public:
            public = tuple(address for address in addresses if is_public(address))
            if not public:
                raise UnusableAnswer(
                    f"is refused: its address {addresses[0]} is not public, and the provider has allow_private=False"
                )
            addresses = public
        return _alternating(addresses)[:_MAX_ADDRESSES]

    async def _resolve(self, host: str, *, seconds: float | None) -> tuple[str, ...]:
        try:
            try:
                async with asyncio.timeout(None if seconds is None else seconds * _LOOKUP_SHARE):
                    return await self._resolver.resolve(host)
            except TimeoutError:
                raise socket.gaierror(socket.EAI_AGAIN, "no answer in time") from None
        except OSError as error:
            raise httpcore.ConnectError("the name does not resolve") from error


class BoundedStream(Unpicklable, httpcore.AsyncNetworkStream):
    """A connection whose answers are handed out in small pieces, and are bounded.

    Args:
        stream: The connection, with or without TLS.
        body_bytes: The longest body of an answer.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, body_bytes: int) -> None:
        self._stream = stream
        self._body_bytes = body_bytes
        self._max_answer = 2 * body_bytes + _MAX_FRAMING
        self._received: bytes = b""
        self._handed_out = 0  # of `_received`
        self._answer = 0  # bytes since the request
        self._lines = self._bytes = 0  # since the last result

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  httpcore's interface
        """Return the next piece, after the event loop has run other tasks.

        Raises:
            UnusableAnswer: The answer is longer than a body may be with its framing, or many lines of it, such as
                informational responses, header lines or chunk extensions, have had no result.
        """
        if self._handed_out == len(self._received):
            self._received = await self._stream.read(min(max_bytes, _READ_BYTES), timeout)
            self._handed_out = 0
        await asyncio.sleep(0)
        piece, lines = _piece(self._received, self._handed_out, max_bytes)
        self._handed_out += len(piece)
        self._answer += len(piece)
        self._bytes += len(piece)
        self._lines += lines
        if self._lines > _MAX_LINES or self._bytes > _MAX_BYTES:
            raise UnusableAnswer(
                f"sent more than {_MAX_LINES} lines or {_MAX_BYTES} bytes of header lines, informational responses, "
                "chunk extensions or trailers"
            )
        if self._answer > self._max_answer:
            raise UnusableAnswer(
                f"sent more than {self._body_bytes} bytes (Limits.answer_bytes) and their framing: check that the URL "
                f"is that of the token endpoint; if it is, raise Limits(answer_bytes=…)"
            )
        return piece

    def progress(self) -> None:
        """Record that what was read had a result: the response's head, or a piece of its body."""
        self._lines = self._bytes = 0

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  httpcore's interface
        """Send a part of a request. The answer is counted from here."""
        self._answer = 0
        self.progress()
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's interface
    ) -> httpcore.AsyncNetworkStream:
        """Return this connection with TLS, bounded in the same way."""
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:  # httpcore does not close the connection of a handshake that is cancelled
            await self._stream.aclose()
            raise
        return BoundedStream(stream, body_bytes=self._body_bytes)

    def get_extra_info(self, info: str) -> Any:
        """Return a fact of the connection.

        `is_readable` is asked of an idle connection: bytes after the end of an answer would begin the next one.
        """
        if info == "is_readable" and self._handed_out < len(self._received):
            return True
        return self._stream.get_extra_info(info)


def _piece(received: bytes, begin: int, max_bytes: int) -> tuple[bytes, int]:
    """Return the next bytes with at most `_PIECE_LINES` line feeds, and the number of those."""
    end = begin
    for lines in range(_PIECE_LINES):
        found = received.find(b"\n", end, begin + max_bytes)
        if found < 0:
            return received[begin : begin + max_bytes], lines
        end = found + 1
    return received[begin:end], _PIECE_LINES


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _alternating(ordered: tuple[str, ...]) -> list[str]:
    """Put an address of the other family second, in case the first one's has no route (RFC 8305 §4)."""
    is_ipv6 = ":" in ordered[0]
    other = next((position for position, address in enumerate(ordered) if (":" in address) != is_ipv6), 1)
    return [ordered[0], *ordered[other : other + 1], *ordered[1:other], *ordered[other + 1 :]]


async def _first(addresses: Sequence[str], connect: Callable[[str], Coroutine[Any, Any, _Stream]]) -> _Stream:
    """Connect to all addresses, each a little after the one before or as soon as that one fails; keep the first."""
    waiting = iter(addresses)
    tasks: set[asyncio.Task[_Stream]] = set()
    error: BaseException | None = None
    try:
        while True:
            address = next(waiting, None)
            if address is not None:
                tasks.add(asyncio.create_task(connect(address), name="tokenmw connection"))
            elif not tasks:
                assert error is not None  # noqa: S101  there is at least one address
                raise error
            delay = None if address is None else _NEXT_ADDRESS
            done, _ = await asyncio.wait(tasks, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                tasks.discard(task)
                if task.exception() is None:
                    return task.result()
                error = error or task.exception()
    finally:
        await _discard(tasks)


async def _discard(tasks: set[asyncio.Task[_Stream]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            await task.result().aclose()
