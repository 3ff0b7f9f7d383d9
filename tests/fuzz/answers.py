"""Parts of responses: lifetimes, dates, JSON and bodies; and an API's rejection of a token."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_tz
from functools import partial
from typing import Any

import httpx

from tests.fuzz.grants import KINDS
from tests.fuzz.messages import LIMITS, NOW, read_message, run, token_http
from tests.fuzz.oracles import Target, Violation, check_lifetime, check_request_error, expected_lifetime, require
from tokenmw.errors import TokenUnavailable
from tokenmw.outgoing.response import is_rejected
from tokenmw.providers.answer import Answer, lifetime, retry_after

__all__ = ["TARGETS"]


def _lifetime(data: bytes) -> None:
    """Read `expires_in` as a JSON value, or as text."""
    try:
        raw: Any = json.loads(data)
    except (ValueError, RecursionError):
        raw = data.decode("utf-8", "replace")
    for default in (None, 600.0):
        try:
            seconds = lifetime(raw, default=default)
        except TokenUnavailable as error:
            check_request_error(error)
            require(expected_lifetime(raw, default=default) is None, "a valid lifetime that was refused")
        else:
            check_lifetime(seconds)
            require(seconds == expected_lifetime(raw, default=default), "another lifetime than the given one")


def _retry_after(data: bytes) -> None:
    """Read `Retry-After` in seconds or as a date; the second line of the input is the `Date` header."""
    value, _, date = data.decode("latin-1").partition("\n")
    wait = retry_after({"retry-after": value, "date": date}, now=NOW)
    require(wait is None or (type(wait) is float and 0 <= wait <= 3600), "an invalid retry_after")
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        require(wait == min(int(text), 3600), "another retry_after than the given one")
    until, now = _imf(text), _imf(date)
    if until is not None and now is not None:
        seconds = (until - now).total_seconds()
        require(wait == (min(seconds, 3600.0) if seconds >= 0 else None), "another date than the given one")


def _imf(text: str) -> datetime | None:
    """Parse a date in the only format that servers may send (RFC 9110 §5.6.7)."""
    try:
        instant = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
        return instant if format_datetime(instant, usegmt=True) == text and parsedate_tz(text) else None
    except ValueError:
        return None


def _json(data: bytes) -> None:
    """Read a body as a JSON object."""
    try:
        document = Answer(200, body=data).json()
    except TokenUnavailable as error:
        check_request_error(error)
    else:
        require(type(document) is dict and document == json.loads(data), "another object")


def _body(data: bytes) -> None:
    """Read a body that is compressed, truncated or too long."""
    message = read_message(data)
    try:
        answer = run(token_http(message).request("POST", "https://idp.example/token"))
    except TokenUnavailable as error:
        check_request_error(error)
        return
    require(len(answer.body) <= LIMITS.answer_bytes, "a body above the limit")
    coding = answer.headers.get("content-encoding", "").lower()
    if coding in ("gzip", "x-gzip", "deflate") and message.body:
        reader = zlib.decompressobj(47)
        require(answer.body == reader.decompress(message.body), "another body than the compressed one")
    elif coding in ("", "identity") or not message.body:
        require(answer.body == message.body, "another body than the given one")
    else:
        raise Violation("a body with an unknown content coding")


class _Body(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        yield self._body


def _rejected(kind: Any, statuses: tuple[int, ...], data: bytes) -> None:
    """Read whether an API rejects a token; the caller can read the whole response afterwards."""
    status, headers, body = read_message(data)
    response = httpx.Response(
        status, headers=headers, stream=_Body(body), request=httpx.Request("GET", "https://api.example/")
    )
    rejected = run(is_rejected(response, provider=kind.provider, library=httpx))
    require(type(rejected) is bool, "a result that is no bool")
    require(not rejected or status in statuses, "a token rejected by a response with another status")
    read = run(_raw(response))
    require(read == body, "a response that has lost a part of its body")
    for given in (None, body):
        result = kind.provider.is_rejected(ProviderAnswer(status, response.headers, given))
        require(result in (True, False) or (result is None and given is None), "no result although the body is known")


class ProviderAnswer:
    """A response as providers receive it."""

    def __init__(self, status: int, headers: Any, body: bytes | None) -> None:
        self.status = status
        self.headers = headers
        self.body = body


async def _raw(response: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in response.stream])  # type: ignore[union-attr]


_DATE = b"Fri, 20 Nov 2026 08:50:07 GMT"
_LIFETIMES = (
    "7200",
    '"7200"',
    '" 7200 "',
    '"1_000"',
    "\uff11\uff12",
    "1e3",
    "1e400",
    "-0",
    "true",
    "null",
    "[7200]",
    "NaN",
    "9" * 400,
)
_STATUSES = {
    "oauth2": (401,),
    "feishu": (200, 400, 401),
    "wecom": (200,),
    "dingtalk": (400, 401),
    "dingtalk_legacy": (200,),
}
"""The statuses with which an API rejects a token."""

_REJECTIONS = (
    b'200\ncontent-type: application/json\n\n{"errcode": 40014}',
    b'200\ncontent-type: application/json\ncontent-length: 18\n\n{"errcode": 40014}',
    b'401\ncontent-type: application/json; charset=utf-8\n\n{"code": "InvalidAuthentication"}',
    b'400\ncontent-type: text/plain\ncontent-length: 20\n\n{"code": 99991663}   ',
    b'401\nwww-authenticate: Bearer error="invalid_token"\n\n',
    b'401\nwww-authenticate: Bearer error="insufficient_scope"\n\n',
    b'200\ncontent-type: application/json\n\n{"errcode": 88, "sub_code": "40014"}',
    b"200\ncontent-type: application/json\ncontent-length: " + b"9" * 5_000 + b"\n\n{}",
    b"200\ncontent-type: application/json\ncontent-encoding: gzip\n\n" + gzip.compress(b'{"errcode": 42001}', mtime=0),
    b"200\ncontent-type: application/octet-stream\n\n\xff",
)
_REJECTIONS_WORDS = (
    b"content-length: ",
    b"content-type: ",
    b'"errcode":',
    b'"code":',
    b'"sub_code":',
    b"error=",
    b"\n\n",
)
_COMPRESSED = gzip.compress(b'{"access_token": "t-1"}', mtime=0)
_BODIES = (
    b"200\n\n{}",
    b"200\ncontent-encoding: gzip\n\n" + _COMPRESSED,
    b"200\ncontent-encoding: gzip\n\n" + _COMPRESSED[:-5],
    b"200\ncontent-encoding: deflate\n\n" + zlib.compress(b"{}"),
    b"200\ncontent-encoding: br\n\n{}",
    b"200\ncontent-encoding: gzip\n\n" + gzip.compress(bytes(2 << 20), mtime=0),
    b"200\ncontent-encoding: identity, gzip\n\n{}",
    b"301\nlocation: /\n\n",
)
_OBJECTS = (
    b'{"a": 1}',
    b"[1]",
    b'\xff\xfe{\0"\0a\0"\0:\x001\0}\0',
    b'{"a": NaN}',
    b'{"a": "\\ud800"}',
    b"\xef\xbb\xbf{}",
)

TARGETS = (
    Target(
        "lifetime",
        _lifetime,
        tuple(value.encode() for value in _LIFETIMES),
        (b"_", b"e", b"-", b".", b'"', b" "),
        1 << 20,
    ),
    Target(
        "retry_after",
        _retry_after,
        (b"120", _DATE + b"\n" + _DATE, b"Fri Nov 20 08:50:07 2026\n" + _DATE, b"-1", b"1e3", "٣".encode(), b"1.5\n,"),
        (_DATE, b"GMT", b" -0000", b" +2359", b":", b",", b"Fri", b"Nov", b"99999"),
        1 << 16,
    ),
    Target("json", _json, _OBJECTS, (b'{"a":', b"[", b"\\u", b"NaN", b"1e999", b'"', b"}")),
    Target("body", _body, _BODIES, (b"content-encoding: ", b"gzip", b"deflate", b"\x1f\x8b\x08\0")),
    *(
        Target(f"rejected.{name}", partial(_rejected, KINDS[name], statuses), _REJECTIONS, _REJECTIONS_WORDS, 1 << 18)
        for name, statuses in _STATUSES.items()
    ),
)
