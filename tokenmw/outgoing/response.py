"""Whether an API's answer says that the token is invalid. The body is read only if it must be, and within bounds."""

from __future__ import annotations

import re
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from tokenmw.outgoing.read_ahead import MAX_BYTES, can_decode, decoded, empty_stream, read_ahead
from tokenmw.providers.base import Provider
from tokenmw.providers.body_codes import declared_length
from tokenmw.providers.dpop import asks_for_nonce
from tokenmw.redaction import Unpicklable, forget_locals, without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = ["discard", "is_rejected", "is_rejected_by_body", "is_rejected_by_head"]

_JSON: Final = re.compile(r"(application|text)/([\w.-]+\+)?json", re.ASCII)
# Some APIs send JSON under these types. Without a length it may be a stream of text that the caller waits for.
_PERHAPS_JSON: Final = frozenset({"", "text/plain", "text/html"})
_WITHOUT_BODY: Final = frozenset({204, 304})  # whatever their headers say (RFC 9112 §6.3)


class _Answer(Unpicklable):
    """An API's answer as `Provider.is_rejected` takes it; `body` is None until it is read."""

    __slots__ = ("_response", "body", "status")

    def __init__(self, response: Any, body: bytes | None = None) -> None:
        self._response = response
        self.status: int = response.status_code
        self.body = body

    @property
    def headers(self) -> Mapping[str, str]:
        headers: Mapping[str, str] = self._response.headers
        return headers


def is_rejected_by_head(response: Any, *, provider: Provider) -> bool | None:
    """Return whether an answer says that the token is invalid; None if its body must be read first."""
    if type(provider).is_rejected is Provider.is_rejected:
        if response.status_code != HTTPStatus.UNAUTHORIZED:
            return False
        return provider.dpop is None or not asks_for_nonce(HTTPStatus.UNAUTHORIZED, response.headers)
    handled = sys.exception()
    try:  # as `without_locals` does it, which costs a call more
        return provider.is_rejected(_Answer(response))
    except BaseException as error:
        del response, provider
        forget_locals(error, handled=handled)
        raise


@without_locals
async def is_rejected_by_body(response: Any, *, provider: Provider, library: ModuleType) -> bool:
    """Return whether an answer's body says that the token is invalid. A body that is read here can be read again."""
    body = await _body(response, library=library)
    return body is not None and bool(provider.is_rejected(_Answer(response, body)))


async def is_rejected(response: Any, *, provider: Provider, library: ModuleType) -> bool:
    """Return whether an answer says that the token is invalid."""
    rejected = is_rejected_by_head(response, provider=provider)
    if rejected is None:
        return await is_rejected_by_body(response, provider=provider, library=library)
    return bool(rejected)


@without_locals
async def discard(response: Any, *, library: ModuleType) -> None:
    """Free the connection of an answer that is not returned: read the rest if it is short, otherwise close it.

    The client reads the answer again before it sends the next request. It gets what was read here, or nothing: it would
    inflate any number of bytes.
    """
    if response.is_stream_consumed or response.is_closed:
        return
    try:
        raw = await read_ahead(response, library=library) if can_decode(response) else None
    except library.RequestError:
        raw = None  # the server has broken off; the next request does not need the rest
    if raw is None or decoded(raw, response) is None:
        response.stream = empty_stream(response, library=library)


async def _body(response: Any, *, library: ModuleType) -> bytes | None:
    """Return the decoded body, or None if it is long, cannot be JSON, or cannot be read."""
    if response.is_stream_consumed:
        # One of the client's hooks read it, and may not have kept it.
        try:
            return bytes(response.content) if len(response.content) <= MAX_BYTES else None
        except library.ResponseNotRead:
            return None
    if response.request.method == "HEAD" or response.status_code in _WITHOUT_BODY:
        return b""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = declared_length(response.headers)
    short = length is not None and length <= MAX_BYTES
    may_be_short = short or "content-length" not in response.headers
    if not (_JSON.fullmatch(media_type) and may_be_short) and not (media_type in _PERHAPS_JSON and short):
        return None
    if not can_decode(response):
        return None
    raw = await read_ahead(response, library=library)
    return None if raw is None else decoded(raw, response)
