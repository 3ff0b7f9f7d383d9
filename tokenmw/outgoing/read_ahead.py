"""Reads the beginning of a response's body, within bounds, and gives the response a stream that repeats it."""

from __future__ import annotations

import asyncio
import functools
import zlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta
    from types import ModuleType

__all__ = ["MAX_BYTES", "can_decode", "decoded", "empty_stream", "read_ahead"]

MAX_BYTES: Final = 64 << 10  # an error is short; a longer body is a download
_MAX_PIECES: Final = 256  # the event loop waits for each piece that has already arrived
_MAX_SECONDS: Final = 5.0  # an error arrives soon after its headers; other bodies may be streams without an end

_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


def can_decode(response: Any) -> bool:
    """Return whether a body can be decoded within bounds: it has no content coding, or one that zlib reads."""
    return _coding(response) in ("", "identity") or _coding(response) in _CODINGS


def decoded(raw: bytes, response: Any) -> bytes | None:
    """Return a body without its content coding; None if that is longer than 64 KiB, unknown, or broken."""
    if _coding(response) in ("", "identity") or not raw:
        return raw
    if not can_decode(response):
        return None
    # Not the client's own decoding, which inflates whole chunks: 1 MiB for each KiB.
    inflater = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    try:
        body = inflater.decompress(raw, MAX_BYTES + 1)
    except zlib.error:
        return None
    return body if inflater.eof and len(body) <= MAX_BYTES else None


async def read_ahead(response: Any, *, library: ModuleType) -> bytes | None:
    """Return the undecoded body, or None if it is longer than 64 KiB, has more than 256 pieces, or takes 5 s.

    The response's stream then starts with what was read.

    Raises:
        RequestError: The library's; the body could not be received.
    """
    if isinstance(response.stream, _Replayed) and response.stream.ahead is not None:
        return response.stream.ahead.body
    ahead = _Ahead(response.stream)
    response.stream = _replayed_class(library)(ahead, stream=response.stream)
    try:
        await ahead.read()
    except library.RequestError as error:
        error.request = response.request
        raise
    return ahead.body


def empty_stream(response: Any, *, library: ModuleType) -> Any:
    """Return an empty stream; the client reaches its end immediately and closes it, which closes the response's own."""
    return _replayed_class(library)(None, stream=response.stream)


def _coding(response: Any) -> str:
    coding: str = response.headers.get("content-encoding", "")
    return coding.strip().lower()


class _Ahead(Unpicklable):
    """The beginning of a stream, read in a task of its own: a read that is cancelled would break the connection."""

    __slots__ = ("_data", "_is_complete", "_pieces", "_rest", "_stopped", "_task")

    def __init__(self, stream: Any) -> None:
        self._rest: AsyncIterator[bytes] = aiter(stream)
        self._data = bytearray()
        self._pieces = 0
        self._is_complete = False
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @property
    def body(self) -> bytes | None:
        """The whole body, if all of it was read."""
        return bytes(self._data) if self._is_complete and len(self._data) <= MAX_BYTES else None

    async def read(self) -> None:
        """Read until the end or a bound."""
        self._task = asyncio.get_running_loop().create_task(self._fill(), name="tokenmw reading a response")
        try:
            await asyncio.wait([self._task], timeout=_MAX_SECONDS)
        except asyncio.CancelledError:
            await self.aclose()
            raise
        self._stopped = True
        if self._task.done():
            self._task.result()

    async def _fill(self) -> None:
        async for piece in self._rest:
            self._data += piece
            self._pieces += 1
            if self._stopped or len(self._data) > MAX_BYTES or self._pieces >= _MAX_PIECES:
                return
        self._is_complete = True

    async def all(self) -> AsyncIterator[bytes]:
        """Yield what was read, then the rest of the stream."""
        shown = len(self._data)
        if shown:
            yield bytes(self._data)
        if self._task is not None and not self._task.done():
            # The read that was under way when the time was over.
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError:
                await self.aclose()
                raise
            self._task.result()
            if len(self._data) > shown:
                yield bytes(self._data[shown:])
        if not self._is_complete:
            async for piece in self._rest:
                yield piece

    async def aclose(self) -> None:
        """Stop reading."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._task is not None and not self._task.cancelled():
            _ = self._task.exception()  # read here, so that asyncio does not log it
        if isinstance(self._rest, AsyncGenerator):
            await self._rest.aclose()


class _Replayed:
    """A response's stream whose beginning was already read. The class for each library derives from this one."""

    def __init__(self, ahead: _Ahead | None, *, stream: Any) -> None:
        self.ahead = ahead
        self._stream = stream

    @property
    def elapsed(self) -> timedelta | None:
        """Return what httpx2 reads from a response's stream."""
        elapsed: timedelta | None = getattr(self._stream, "elapsed", None)
        return elapsed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.ahead is not None:
            async for piece in self.ahead.all():
                yield piece

    async def aclose(self) -> None:
        if self.ahead is not None:
            await self.ahead.aclose()
        await self._stream.aclose()


@functools.cache
def _replayed_class(library: ModuleType) -> Any:
    return type("ReplayedStream", (_Replayed, library.AsyncByteStream), {})
