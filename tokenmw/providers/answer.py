"""A token endpoint's response: read up to a bound, and kept without the request and its secrets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import sys
import zlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tokenmw.errors import TokenUnavailable
from tokenmw.redaction import FrozenValue
from tokenmw.values import MAX_LIFETIME, Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "MAX_RETRY_AFTER",
    "Answer",
    "UnusableAnswer",
    "grant_in",
    "http_date",
    "json_object",
    "lifetime",
    "number",
    "read_body",
    "retry_after",
]

B = TypeVar("B", bytes, bytearray)

MAX_RETRY_AFTER: Final = 3600.0  # seconds; a longer wait would outlive the mistake that caused it

_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
# As JSON writes numbers (RFC 8259 §6). Python also reads 1_000 and the digits of every script; servers never mean that.
_NUMBER: Final = re.compile(r"[ \t\r\n]*-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?[ \t\r\n]*", re.ASCII)
_MAX_NUMBER: Final = 64  # characters of a number that is text
_MAX_DATE: Final = 64  # characters; the parser of dates takes longer for a longer text
_HTML: Final = "text/html"
# Only these are shown: the server chooses the text, which may repeat the secret.
_MEDIA_TYPES: Final = frozenset(
    {
        *("application/json", "application/problem+json", "application/xml", "application/octet-stream"),
        *("application/jwt", "application/x-www-form-urlencoded", _HTML, "text/plain", "text/xml"),
    }
)
# Names of fields that answers without a token have. Only these are shown.
_KNOWN_FIELDS: Final = (
    *("access_token", "accessToken", "tenant_access_token", "app_access_token", "token", "id_token", "refresh_token"),
    *("token_type", "expires_in", "expireIn", "expire", "expires_on", "expires_at", "scope", "error", "errors"),
    *("code", "errcode", "errmsg", "message", "msg", "status", "success", "data", "result"),
)
_REQUEST_TIMEOUT: Final = 408
_PROXY_AUTHENTICATION: Final = 407
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
# The request asks for none, but some servers compress every response.
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_MAX_PIECES: Final = 4096  # of one body; a server sends some hundred bytes in a chunk, or more
_TURN: Final = 64  # pieces after which the event loop runs other tasks
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


class Answer(FrozenValue):
    """A token endpoint's response, as `TokenHTTP.request` returns it. Tests of a provider may make their own.

    >>> Answer(200, body=b'{"access_token": "t-1", "expires_in": "7200"}').json()["expires_in"]
    '7200'

    Attributes:
        status: The HTTP status.
        headers: The header lines, names in lower case.
        body: The decoded body in bytes.
        retry_after: Seconds that the endpoint asks to wait, at most 3600; None if it does not say.
        endpoint: The endpoint's host and port, with which the texts of errors begin.
    """

    __slots__ = ("_fields", "body", "endpoint", "headers", "retry_after", "status")

    status: int
    headers: Mapping[str, str]
    body: bytes
    retry_after: float | None
    endpoint: str
    _fields: dict[str, Any] | None

    def __init__(
        self,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        retry_after: float | None = None,
        endpoint: str = "the token endpoint",
    ) -> None:
        put = object.__setattr__
        put(self, "status", status)
        put(self, "headers", {name.lower(): value for name, value in (headers or {}).items()})
        put(self, "body", body)
        put(self, "retry_after", retry_after)
        put(self, "endpoint", endpoint)

    @property
    def fields(self) -> dict[str, Any] | None:
        """The JSON object in the body, or None if the body is something else. It is parsed once."""
        try:
            return self._fields
        except AttributeError:
            object.__setattr__(self, "_fields", json_object(self.body))
            return self._fields

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object. Of a name that occurs twice, the last value counts.

        Raises:
            TokenUnavailable: The body is not a JSON object. The text has the status and the content type, never the
                body, because error pages repeat what was sent.
        """
        if self.fields is None:
            raise self.not_json()
        return self.fields

    def check_busy(self) -> None:
        """Raise if the status means "not now" (RFC 9110 §15.5.9, §15.6; RFC 6585 §4), or is a proxy's own (407).

        Raises:
            TokenUnavailable: The status is 407, 408, 429 or 5xx.
        """
        if self.status == _PROXY_AUTHENTICATION:
            raise TokenUnavailable(
                f"the proxy in front of {self.endpoint} requires a login (HTTP 407): put its user name and password "
                f"into the proxy's URL: HTTP_PROXY with HTTPOptions(trust_env=True), or an option of the client given "
                f"as http="
            )
        if self.status not in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS) and self.status < _SERVER_ERROR:
            return
        waits = "" if self.retry_after is None else f", Retry-After: {self.retry_after:.0f} s"
        answered = f"HTTP {self.status}, {self.media_type}{waits}"
        if self.status == _TOO_MANY_REQUESTS:
            text = f"limits the rate of token requests ({answered}): check what else requests tokens there"
        elif self.status == _REQUEST_TIMEOUT:
            text = f"did not receive the whole request in time ({answered}): check the network"
        else:
            text = f"is busy or broken, or a proxy in front of it is ({answered}): check the provider's status page"
        raise TokenUnavailable(f"{self.endpoint} {text}", retry_after=self.retry_after, said=True)

    def not_json(self, *, check: str = "") -> TokenUnavailable:
        """Return the error for a body that is not a JSON object; `check` names the options to check."""
        page = "it is a web page, such as a login page or the error page of a proxy" if self.media_type == _HTML else ""
        hints = "; ".join(hint for hint in (page, check and f"check {check}") if hint)
        return TokenUnavailable(
            f"{self.endpoint} did not answer with a JSON object "
            f"(HTTP {self.status}, {self.media_type}, {len(self.body)} bytes){hints and ': '}{hints}"
        )

    @property
    def media_type(self) -> str:
        """The content type as text for an error: a well-known one, "no content type" or "another content type"."""
        named = self.headers.get("content-type", "")[:_MAX_DATE].partition(";")[0].strip().lower()
        if not named:
            return "no content type"
        return named if named in _MEDIA_TYPES else "another content type"

    def __repr__(self) -> str:
        return f"<Answer {self.status}, {len(self.body)} bytes>"


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a body, or None if the body is something else or has a number of 4 300 digits."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def grant_in(
    answer: Answer,
    fields: Mapping[str, Any],
    *tokens: str,
    seconds: Callable[[], float],
    token_type: str = "Bearer",
    extra: Mapping[str, Any] | None = None,
) -> Grant:
    """Return the token in the first of the fields `tokens` that is not empty, with a lifetime of `seconds()`.

    Raises:
        TokenUnavailable: There is no token, or the token or its lifetime cannot be used. The text begins with the
            endpoint and names the field.
    """
    value = next((fields[name] for name in tokens if fields.get(name)), None)
    if value is None:
        # By the known names, not by the answer's: it may have thousands.
        found = [name for name in _KNOWN_FIELDS if name in fields]
        has = f"it has {', '.join(found)}" if found else "it has none of the usual fields: check the URL"
        without = "with an empty" if any(name in fields for name in tokens) else "without"
        problem = f"answered HTTP {answer.status} {without} {' or '.join(tokens)}: {has}"
    else:
        try:
            return Grant(value, expires_in=seconds(), token_type=token_type, extra=extra)
        except TokenUnavailable as unusable:
            problem = f"granted a token that cannot be used: {unusable}"
    raise TokenUnavailable(f"{answer.endpoint} {problem}")


class UnusableAnswer(Exception):
    """Raised for a response that arrived and cannot be used; the text continues "the token endpoint …"."""


async def read_body(response: Any, *, limit: int) -> bytes:
    """Read the decoded body of an httpx or httpx2 response, holding little more than `limit` bytes at any time.

    The client's own decoding is not used: it inflates whole chunks before their size can be checked.

    Raises:
        UnusableAnswer: The body is longer, before or after it is inflated, comes in too many pieces, or cannot be
            inflated.
    """
    if response.is_stream_consumed:  # a mock transport or an event hook of the client has read and decoded it
        return _bounded(bytes(response.content), limit=limit)
    body = await _read_raw(response, limit=limit)
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding == "identity" or not body:
        return body
    if coding not in _CODINGS:
        raise UnusableAnswer("compressed its response in a way that was not asked for")
    inflater = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    try:
        decoded = _bounded(inflater.decompress(body, limit + 1), limit=limit)
    except zlib.error:
        decoded = b""
    if not inflater.eof:
        raise UnusableAnswer("sent a compressed response that is cut off or broken")
    return decoded


async def _read_raw(response: Any, *, limit: int) -> bytes:
    body = bytearray()
    pieces = 0
    async with contextlib.aclosing(response.aiter_raw()) as chunks:
        async for chunk in chunks:
            body += chunk
            _bounded(body, limit=limit)
            pieces += 1
            if pieces > _MAX_PIECES:
                raise UnusableAnswer(f"sent its response in more than {_MAX_PIECES} pieces")
            if pieces % _TURN == 0:
                # Pieces that have arrived together are read without a pause, each for 20 to 60 µs.
                await asyncio.sleep(0)
    return bytes(body)


def _bounded(body: B, *, limit: int) -> B:
    if len(body) > limit:
        raise UnusableAnswer(
            f"sent more than {limit} bytes (Limits.answer_bytes): check that the URL is that of the token endpoint; if "
            f"it is, raise Limits(answer_bytes=…)"
        )
    return body


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, at most 3600 (RFC 9110 §10.2.3).

    A date is compared with the response's own `Date`, so a server clock that differs from ours does no harm.
    A negative, past or malformed value counts as not given.

    >>> retry_after({"retry-after": "120"}, now=0)
    120.0

    Args:
        headers: The header lines, names in lower case.
        now: Seconds since 1970 (UTC), for responses without a `Date`.
    """
    raw = headers.get("retry-after", "")[: _MAX_DATE + 1].strip()
    if _SECONDS.fullmatch(raw):
        return min(float(raw), MAX_RETRY_AFTER)
    until = http_date(raw)
    if until is None:
        return None
    sent = http_date(headers.get("date", ""))
    wait = until - (now if sent is None else sent)
    return min(wait, MAX_RETRY_AFTER) if 0 <= wait < math.inf else None


def http_date(text: str) -> float | None:
    """Return a header's date in seconds since 1970, or None if the text is not a date (RFC 9110 §5.6.7)."""
    if len(text) > _MAX_DATE:
        return None
    # On some malformed input the parser raises IndexError.
    try:
        instant = parsedate_to_datetime(text)
        # A date without a zone is in UTC too; Python would take it for local time.
        return (instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


def lifetime(raw: object, *, default: float | None = None, field: str = "") -> float:
    """Return a token's lifetime in seconds, from a field of any JSON type: a number, or text that holds one.

    >>> lifetime("7200"), lifetime(None, default=600.0)
    (7200.0, 600.0)

    More than 30 days are cut to that.

    Args:
        raw: The field's value; None if the field is missing or null.
        default: The documented lifetime in seconds, for providers that leave the field out. Default: an error.
        field: The field's name, for error texts. Default: they do not name it.

    Raises:
        TokenUnavailable: The field is missing and there is no default, or it is not a positive, finite number.
    """
    named = f"the token's lifetime ({field})" if field else "the token's lifetime"
    if raw is None:
        if default is None:
            missing = f": {field} is missing" if field else ""
            raise TokenUnavailable(f"the response does not say how long the token lives{missing}")
        return default
    seconds = number(raw)
    if seconds is None:
        raise TokenUnavailable(f"{named} in the response is not a number")
    if not math.isfinite(seconds):
        raise TokenUnavailable(f"{named} in the response is not finite")
    if seconds <= 0:
        raise TokenUnavailable(f"{named} in the response is not positive: the token has already expired")
    return min(seconds, MAX_LIFETIME)


def number(raw: object) -> float | None:
    """Return the number in a field, given as one or as text; None if there is none.

    Text counts if JSON could write the number so, at most with spaces around it, in at most 64 characters: `"7200"`,
    `" 7.2e3 "`.
    """
    if isinstance(raw, str):
        return float(raw) if len(raw) <= _MAX_NUMBER and _NUMBER.fullmatch(raw) else None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        return float(raw)
    except OverflowError:  # beyond the range of float; only the sign still matters
        return math.copysign(sys.float_info.max, 1 if raw > 0 else -1)
