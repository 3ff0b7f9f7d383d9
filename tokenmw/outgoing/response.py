"""Whether an API's answer says that the token is invalid. The body is read only if it must be, and at most 64 KiB."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

from tokenmw.providers.body_codes import declared_length
from tokenmw.redaction import Unpicklable, without_locals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import timedelta
    from types import ModuleType

    from tokenmw.providers.base import Provider

__all__ = ["discard", "is_rejected"]

_MAX_BYTES: Final = 64 << 10  # an error is short; a longer body is a download
_JSON: Final = re.compile(r"(application|text)/([\w.-]+\+)?json", re.ASCII)
# Some APIs send JSON under these types. Without a length it may be a stream of text that the caller waits for.
_PERHAPS_JSON: Final = frozenset({"", "text/plain", "text/html"})


class _Answer(Unpicklable):
    """An API's answer as `Provider.is_rejected` takes it; `body` is None until it is read."""

    __slots__ = ("_response", "body")

    def __init__(self, response: Any, *, body: bytes | None) -> None:
        self._response = response
        self.body = body

    @property
    def status(self) -> int:
        return int(self._response.status_code)

    @property
    def headers(self) -> Mapping[str, str]:
        headers: Mapping[str, str] = self._response.headers
        return headers


@without_locals
async def is_rejected(response: Any, *, provider: Provider, library: ModuleType) -> bool:
    """Return whether an answer says that the token is invalid. A body that is read here can be read again."""
    rejected = provider.is_rejected(_Answer(response, body=None))
    if rejected is None:
        body = await _body(response, library=library)
        rejected = body is not None and provider.is_rejected(_Answer(response, body=body))
    return bool(rejected)


@without_locals
async def discard(response: Any, *, library: ModuleType) -> None:
    """Free the connection of an answer that is not returned: read the rest if it is short, otherwise close it.

    The client reads the answer again before it sends the next request; it gets what was read here, or nothing.
    """
    if response.is_stream_consumed or response.is_closed or await _read_ahead(response, library=library) is not None:
        return
    # An empty stream: the client reaches its end immediately and closes it, which closes the real one.
    response.stream = _replayed_class(library)(b"", rest=None, stream=response.stream)


async def _body(response: Any, *, library: ModuleType) -> bytes | None:
    """Return the decoded body, or None if it is long, cannot be JSON, or cannot be read."""
    if response.is_stream_consumed:
        # One of the client's hooks read it, and may not have kept it.
        try:
            return bytes(response.content)
        except library.ResponseNotRead:
            return None
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = declared_length(response.headers)
    short = length is not None and length <= _MAX_BYTES
    may_be_short = short or "content-length" not in response.headers
    if not (_JSON.fullmatch(media_type) and may_be_short) and not (media_type in _PERHAPS_JSON and short):
        return None
    raw = await _read_ahead(response, library=library)
    if raw is None:
        return None
    try:
        return bytes(library.Response(response.status_code, headers=response.headers, content=raw).content)
    except library.DecodingError:
        return None


async def _read_ahead(response: Any, *, library: ModuleType) -> bytes | None:
    """Return the undecoded body, or None if it is long. The response's stream then starts with what was read."""
    stream = response.stream
    rest = aiter(stream)
    ahead = bytearray()
    complete = True
    try:
        async for chunk in rest:
            ahead += chunk
            if len(ahead) > _MAX_BYTES:
                complete = False
                break
    except library.RequestError as error:
        error.request = response.request
        raise
    response.stream = _replayed_class(library)(bytes(ahead), rest=rest, stream=stream)
    return bytes(ahead) if complete else None


@functools.cache
def _replayed_class(library: ModuleType) -> Any:
    class ReplayedStream(library.AsyncByteStream):  # type: ignore[name-defined, misc]
        """A response's stream whose beginning was already read."""

        def __init__(self, ahead: bytes, *, rest: AsyncIterator[bytes] | None, stream: Any) -> None:
            self._ahead = ahead
            self._rest = rest
            self._stream = stream

        @property
        def elapsed(self) -> timedelta | None:
            """Return what httpx2 reads from a response's stream."""
            elapsed: timedelta | None = getattr(self._stream, "elapsed", None)
            return elapsed

        async def __aiter__(self) -> AsyncIterator[bytes]:
            if self._ahead:
                yield self._ahead
            if self._rest is not None:
                async for chunk in self._rest:
                    yield chunk

        async def aclose(self) -> None:
            if isinstance(self._rest, AsyncGenerator):
                await self._rest.aclose()
            await self._stream.aclose()

    return ReplayedStream
