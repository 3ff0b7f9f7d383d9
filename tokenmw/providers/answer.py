"""What a token endpoint answered: read with a bound, and kept without the request and its secrets."""

from __future__ import annotations

import contextlib
import json
import math
import re
import zlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.errors import TokenUnavailable
from tokenmw.redaction import FrozenValue

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_RETRY_AFTER", "Answer", "UnusableAnswer", "failure_of", "http_date", "read_body", "retry_after"]

MAX_RETRY_AFTER: Final = 3600.0  # seconds; a longer pause would outlive the mistake that caused it

_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,60}", re.ASCII)
_REQUEST_TIMEOUT: Final = 408
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
# Nothing is asked for, but some servers compress whatever they are asked.
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


class Answer(FrozenValue):
    """A token endpoint's answer. `TokenHTTP.request` makes them, and so may a test of a provider.

    Attributes:
        status: The HTTP status.
        headers: The header lines, names in lower case.
        body: The decoded body in bytes.
        retry_after: Seconds that the endpoint asked us to wait, at most an hour; None if it did not say.
    """

    __slots__ = ("body", "headers", "retry_after", "status")

    status: int
    headers: Mapping[str, str]
    body: bytes
    retry_after: float | None

    def __init__(
        self,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        retry_after: float | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "status", status)
        put(self, "headers", {name.lower(): value for name, value in (headers or {}).items()})
        put(self, "body", body)
        put(self, "retry_after", retry_after)

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            TokenUnavailable: It is none. The text has the status and the content type, never the body: error
                pages repeat what was sent.
        """
        try:
            document: Any = json.loads(self.body)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return cast("dict[str, Any]", document)
        del document  # it may repeat what was sent
        raise TokenUnavailable(
            f"the token endpoint did not answer with a JSON object "
            f"(HTTP {self.status}, {self._media_type()}, {len(self.body)} bytes)"
        )

    def check_busy(self) -> None:
        """Raise if the status says "not now" (RFC 9110 §15.5.9, §15.6; RFC 6585 §4).

        Raises:
            TokenUnavailable: The status is 408, 429 or 5xx.
        """
        if self.status in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS) or self.status >= _SERVER_ERROR:
            raise TokenUnavailable(
                f"the token endpoint is busy or broken (HTTP {self.status})",
                retry_after=self.retry_after,
                said=True,
            )

    def _media_type(self) -> str:
        named = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return named if _MEDIA_TYPE.fullmatch(named) else "no content type"

    def __repr__(self) -> str:
        return f"<Answer {self.status}, {len(self.body)} bytes>"


class UnusableAnswer(Exception):
    """Raised for an answer that came but is of no use; the text is what the endpoint did."""


def failure_of(error: Exception, *, seconds: float) -> str:
    """Return what a request without an answer came to, as the end of a sentence about the endpoint."""
    kind = type(error).__name__
    # The last two are httpx's and httpx2's: it was reached, and said nothing.
    if isinstance(error, TimeoutError) or kind in ("ReadTimeout", "WriteTimeout"):
        return f"did not answer within {seconds:g} s ({kind})"
    return f"could not be reached ({kind})"


async def read_body(response: Any, *, limit: int) -> bytes:
    """Read the decoded body of an httpx or httpx2 response, never holding much more than `limit` bytes.

    The client's own decoding is not used, because it inflates whole chunks before anybody can count.

    Raises:
        UnusableAnswer: The body or what it inflates to is longer, or it does not inflate.
    """
    too_long = UnusableAnswer(f"sent more than {limit} bytes (Limits.answer_bytes)")
    if response.is_stream_consumed:  # by a mock transport or a hook of the client's, and decoded then
        if len(response.content) > limit:
            raise too_long
        return bytes(response.content)
    body = bytearray()
    async with contextlib.aclosing(response.aiter_raw()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                raise too_long
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding == "identity" or not body:
        return bytes(body)
    if coding not in _CODINGS:
        raise UnusableAnswer("compressed its answer in a way that was not asked for")
    inflater = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    try:
        decoded = inflater.decompress(body, limit + 1)
    except zlib.error:
        decoded = b""
    if len(decoded) > limit:
        raise too_long
    if not inflater.eof:
        raise UnusableAnswer("sent a compressed answer that is cut off or broken")
    return decoded


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, at most an hour (RFC 9110 §10.2.3).

    A date is measured against the answer's own `Date`, so that a clock that differs from ours does no harm.
    What is negative, in the past or no such value counts as not given.

    >>> retry_after({"retry-after": "120"}, now=0)
    120.0

    Args:
        headers: The header lines, names in lower case.
        now: Seconds since 1970 (UTC), for answers without a `Date`.
    """
    raw = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(raw):
        return min(float(raw), MAX_RETRY_AFTER)
    until = http_date(raw)
    if until is None:
        return None
    sent = http_date(headers.get("date", ""))
    wait = until - (now if sent is None else sent)
    return min(wait, MAX_RETRY_AFTER) if 0 <= wait < math.inf else None


def http_date(text: str) -> float | None:
    """Return the instant of a date in a header, in seconds since 1970, or None if it is none (RFC 9110 §5.6.7)."""
    # The parser is known to leave with an IndexError on some garbage.
    try:
        instant = parsedate_to_datetime(text)
        # A form without a zone is in UTC as well; Python would take it for this machine's own time.
        return (instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
