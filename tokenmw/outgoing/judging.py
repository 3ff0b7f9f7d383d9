"""Whether an API's answer says "this token is not valid": read only where it must be, and never much of it."""

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

_MOST: Final = 64 << 10  # bytes; an error is short, and what is longer is a download
_JSON: Final = re.compile(r"(application|text)/([\w.-]+\+)?json", re.ASCII)
# Some APIs send their JSON under such a name. Without a length it may be a stream of words that somebody waits for.
_PERHAPS_JSON: Final = frozenset({"", "text/plain", "text/html"})


class _Answer(Unpicklable):
    """An outgoing request's answer, as providers judge it."""

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
    """Return whether a provider's API refused the token. What is read of the body can be read again."""
    verdict = provider.is_rejected(_Answer(response, body=None))
    if verdict is None:
        body = await _body(response, library=library)
        verdict = body is not None and provider.is_rejected(_Answer(response, body=body))
    return bool(verdict)


@without_locals
async def discard(response: Any, *, library: ModuleType) -> None:
    """Be done with an answer, so that its connection is free: read to its end if that is near, else closed.

    The client reads it once more before it sends the next request; it finds what was read here, or nothing.
    """
    if response.is_stream_consumed or response.is_closed or await _read_ahead(response, library=library) is not None:
        return
    # Its end, which the client comes to at once, closes the real one.
    response.stream = _replayed_class(library)(b"", rest=None, stream=response.stream)


async def _body(response: Any, *, library: ModuleType) -> bytes | None:
    if response.is_stream_consumed:
        # By a hook of the client's, which may have kept it or not.
        try:
            return bytes(response.content)
        except library.ResponseNotRead:
            return None
    named = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = declared_length(response.headers)
    short = length is not None and length <= _MOST
    may_be_short = short or "content-length" not in response.headers
    if not (_JSON.fullmatch(named) and may_be_short) and not (named in _PERHAPS_JSON and short):
        return None
    raw = await _read_ahead(response, library=library)
    if raw is None:
        return None
    try:
        return bytes(library.Response(response.status_code, headers=response.headers, content=raw).content)
    except library.DecodingError:
        return None


async def _read_ahead(response: Any, *, library: ModuleType) -> bytes | None:
    """Return the body as it came over the wire, or None if it is long; whoever reads the response gets all of it."""
    stream = response.stream
    rest = aiter(stream)
    ahead = bytearray()
    whole = True
    try:
        async for chunk in rest:
            ahead += chunk
            if len(ahead) > _MOST:
                whole = False
                break
    except library.RequestError as error:
        error.request = response.request
        raise
    response.stream = _replayed_class(library)(bytes(ahead), rest=rest, stream=stream)
    return bytes(ahead) if whole else None


@functools.cache
def _replayed_class(library: ModuleType) -> Any:
    class ReplayedStream(library.AsyncByteStream):  # type: ignore[name-defined, misc]
        """A response's stream of which the beginning has been read already."""

        def __init__(self, ahead: bytes, *, rest: AsyncIterator[bytes] | None, stream: Any) -> None:
            self._ahead = ahead
            self._rest = rest
            self._stream = stream

        @property
        def elapsed(self) -> timedelta | None:
            """What httpx2 asks the stream for."""
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
