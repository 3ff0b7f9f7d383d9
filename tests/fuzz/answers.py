"""Pieces of answers: lives, dates, JSON, bodies; and what an API says of a token."""

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
from tests.fuzz.oracles import Broken, Target, check_life, check_request_error, life_of, require
from tokenmw.errors import TokenUnavailable
from tokenmw.outgoing.response import is_rejected
from tokenmw.providers.answer import Answer, lifetime, retry_after

__all__ = ["TARGETS"]


def _life(data: bytes) -> None:
    """Read `expires_in` as JSON has it, or as text."""
    try:
        raw: Any = json.loads(data)
    except (ValueError, RecursionError):
        raw = data.decode("utf-8", "replace")
    for default in (None, 600.0):
        try:
            seconds = lifetime(raw, default=default)
        except TokenUnavailable as error:
            check_request_error(error)
            require(life_of(raw, default=default) is None, "a life that was refused")
        else:
            check_life(seconds)
            require(seconds == life_of(raw, default=default), "another life than the one that was given")


def _retry_after(data: bytes) -> None:
    """Read a pause of seconds or until a date, with the answer's own date in the second line."""
    value, _, date = data.decode("latin-1").partition("\n")
    wait = retry_after({"retry-after": value, "date": date}, now=NOW)
    require(wait is None or (type(wait) is float and 0 <= wait <= 3600), "a pause that is none")
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        require(wait == min(int(text), 3600), "another pause than the one that was given")
    until, now = _imf(text), _imf(date)
    if until is not None and now is not None:
        wanted = (until - now).total_seconds()
        require(wait == (min(wanted, 3600.0) if wanted >= 0 else None), "another date than the one that was given")


def _imf(text: str) -> datetime | None:
    """Read a date in the one form that servers must send (RFC 9110 §5.6.7), and no other."""
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
    """Read a body that is compressed, cut, or longer than it may be."""
    message = read_message(data)
    try:
        answer = run(token_http(message).request("POST", "https://idp.example/token"))
    except TokenUnavailable as error:
        check_request_error(error)
        return
    require(len(answer.body) <= LIMITS.answer_bytes, "a body beyond the limit")
    coding = answer.headers.get("content-encoding", "").lower()
    if coding in ("gzip", "x-gzip", "deflate") and message.body:
        reader = zlib.decompressobj(47)
        require(answer.body == reader.decompress(message.body), "another body than the one that was compressed")
    elif coding in ("", "identity") or not message.body:
        require(answer.body == message.body, "another body than the one that was sent")
    else:
        raise Broken("a body of an unknown coding")


class _Whole(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        yield self._body


def _rejected(kind: Any, statuses: tuple[int, ...], data: bytes) -> None:
    """Judge an API's answer; the sender of the request can read all of it afterwards."""
    status, headers, body = read_message(data)
    response = httpx.Response(
        status, headers=headers, stream=_Whole(body), request=httpx.Request("GET", "https://api.example/")
    )
    verdict = run(is_rejected(response, provider=kind.provider, library=httpx))
    require(type(verdict) is bool, "a verdict that is none")
    require(not verdict or status in statuses, "a token thrown away for an answer that is not about it")
    read = run(_raw(response))
    require(read == body, "an answer that has lost some of its body")
    for given in (None, body):
        told = kind.provider.is_rejected(Told(status, response.headers, given))
        require(told in (True, False) or (told is None and given is None), "a verdict that never comes")


class Told:
    """An answer as providers are shown it."""

    def __init__(self, status: int, headers: Any, body: bytes | None) -> None:
        self.status = status
        self.headers = headers
        self.body = body


async def _raw(response: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in response.stream])  # type: ignore[union-attr]


_DATE = b"Fri, 20 Nov 2026 08:50:07 GMT"
_LIVES = (
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
"""With which an API says that a token is not valid."""

_JUDGED = (
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
_JUDGED_WORDS = (b"content-length: ", b"content-type: ", b'"errcode":', b'"code":', b'"sub_code":', b"error=", b"\n\n")
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
    Target("life", _life, tuple(life.encode() for life in _LIVES), (b"_", b"e", b"-", b".", b'"', b" "), 1 << 20),
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
        Target(f"rejected.{name}", partial(_rejected, KINDS[name], statuses), _JUDGED, _JUDGED_WORDS, 1 << 18)
        for name, statuses in _STATUSES.items()
    ),
)
