"""Answers of APIs that an auth object sees: bodies that it judges, and redirects of a URL with the token in it."""

from __future__ import annotations

import base64
import gzip
import io
import logging
import zlib
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import httpx

from tests.fuzz.grants import KINDS
from tests.fuzz.messages import Message, read_message, run
from tests.fuzz.oracles import Target, require
from tokenmw import Token
from tokenmw.outgoing import token_auth
from tokenmw.testing import make_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tokenmw.providers import Provider

__all__ = ["TARGETS"]

_TOKEN = "T0ken-/+1234567890="
_LONGEST_JUDGED = 64 << 10
_REDIRECTS = (301, 302, 303, 307, 308)


class _Judge:
    """A provider that records the bodies it is given."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.provider = self
        self.judged: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def authorize(self, request: Any, token: Token) -> None:
        self._provider.authorize(request, token)

    def is_rejected(self, answer: Any) -> bool | None:
        if answer.body is not None:
            self.judged.append(answer.body)
        return self._provider.is_rejected(answer)


def _auth_of(provider: Any) -> Any:
    """Return an auth object with one token, which never gets a newer one."""
    token = make_token(_TOKEN)

    async def find() -> tuple[Any, Any]:
        return provider, SimpleNamespace(provider=provider)

    async def get_token(_entry: Any) -> Token:
        return token

    async def invalidate(_token: Token) -> bool:
        return True

    return token_auth(find, get_token=get_token, invalidate=invalidate, withheld=lambda _url: None)


class _Body(httpx.AsyncByteStream):
    """A body that is received in pieces of 1, 2, 4, … bytes."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        begin, size = 0, 1
        while begin < len(self._body):
            yield self._body[begin : begin + size]
            begin, size = begin + size, size * 2


def _body(kind: Any, data: bytes) -> None:
    """Send a request whose answer is the input; the program gets it unchanged."""
    run(_judge(_Judge(kind.provider), read_message(data)))


async def _judge(judge: _Judge, message: Message) -> None:
    status, headers, body = message
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, headers=headers, stream=_Body(body))

    host = next((host for host in judge.hosts or () if not host.startswith(".")), "api.example")
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        try:
            async with http.stream("GET", f"https://{host}/x", auth=_auth_of(judge)) as response:
                read = b"".join([piece async for piece in response.aiter_raw()])
                require(response.status_code == status, "another status")
                require(response.headers.raw == httpx.Headers(headers).raw, "other headers")
        except httpx.RequestError:
            require(status in _REDIRECTS, "an error although the answer was received")
            return
        except httpx.InvalidURL:  # the client's, for a redirect to a URL that cannot be joined to the first one
            require(status in _REDIRECTS, "an error although the answer was received")
            return
    require(read == body, "a response that has lost a part of its body")
    require(len(requests) == 1, "a request that was sent again without another token")
    for judged in judge.judged:
        require(len(judged) <= _LONGEST_JUDGED, "a judged body above the limit")
        require(judged in (body, _decoded(body)), "another body than the given one")


def _decoded(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(47).decompress(body)
    except zlib.error:
        return body


class _Traced(httpx.AsyncBaseTransport):
    """Answers the first request with a redirect, and calls the `trace` extension as httpcore does."""

    def __init__(self, location: bytes) -> None:
        self._location = location
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace = request.extensions["trace"]
        core = httpx.URL(request.url)
        wire = type("URL", (), {"host": core.raw_host, "port": core.port, "scheme": core.raw_scheme})
        wire.target = core.raw_path  # type: ignore[attr-defined]
        await trace("connection.connect_tcp.started", {"host": core.host})
        await trace("http11.send_request_headers.started", {"request": type("Request", (), {"url": wire})})
        self.sent.append(request)
        lines = [(b"location", self._location)]
        answer = (b"HTTP/1.1", 302 if len(self.sent) == 1 else 200, b"", lines)
        await trace("http11.receive_response_headers.complete", {"return_value": answer})
        return httpx.Response(answer[1], headers=lines, request=request)


def _redirect(data: bytes) -> None:
    """Redirect a request with the token in its query to the input; `{token}` stands for the token."""
    location = data.replace(b"{token}", _TOKEN.encode()).replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
    run(_follow(location))


async def _follow(location: bytes) -> None:
    transport, log = _Traced(location), io.StringIO()
    handler, logger = logging.StreamHandler(log), logging.getLogger("httpx")
    provider = KINDS["wecom"].provider
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    error = ""
    try:
        async with httpx.AsyncClient(transport=transport, follow_redirects=True, max_redirects=1) as http:
            await http.get("https://qyapi.weixin.qq.com/x", auth=_auth_of(provider))
    except (httpx.RequestError, httpx.InvalidURL, ValueError) as raised:  # idna raises a ValueError in the client
        error = f"{raised} {getattr(raised, '_request', None) and raised.request.url}"  # type: ignore[union-attr]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    require(len(transport.sent) in (1, 2), "a redirect that was followed twice")
    for request in transport.sent[1:]:
        require(not _leaks(str(request.url)), "the token in the URL of a redirect")
        require(_TOKEN not in str(request.headers.raw), "the token in the headers of a redirect")
    require(not _leaks(log.getvalue()), "the token in the log")
    require(not _leaks(error), "the token in an error")


def _leaks(text: str) -> bool:
    for _ in range(40):
        if _TOKEN in text or quote(_TOKEN, safe="") in text:
            return True
        text = unquote(text)
    return base64.b64encode(_TOKEN.encode()).decode()[:-4] in text


_INSIDE = quote(f"https://qyapi.weixin.qq.com/x?access_token={quote(_TOKEN, safe='')}", safe="").encode()
_LOCATIONS = (
    b"https://evil.example/",
    b"/y?a=1",
    b"?{token}",
    b"https://evil.example/?next=" + _INSIDE,
    b"https://evil.example/?next=" + quote(_INSIDE, safe="").encode(),
    b"https://evil.example/#{token}",
    b"https://user:{token}@evil.example/",
    b"https://evil.example:{token}/",
    b"https://[{token}/",
    b"//[::1]{token}",
    b"https://xn--{token}.example/",
    b"https://evil.example/?state=" + base64.b64encode(_TOKEN.encode()),
    b"https://" + _TOKEN.encode().hex().encode() + b".example/\xff",
)
_BODIES = (
    b'200\ncontent-type: application/json\n\n{"errcode": 40014}',
    b'401\ncontent-type: application/json\n\n{"code": 99991663}',
    b"200\ncontent-type: application/json\ncontent-encoding: gzip\n\n" + gzip.compress(b'{"errcode": 42001}', mtime=0),
    b"200\ncontent-type: application/json\ncontent-encoding: gzip\n\n" + gzip.compress(bytes(2 << 20), mtime=0),
    b"200\ncontent-type: application/json\ncontent-encoding: gzip, gzip\n\n"
    + gzip.compress(gzip.compress(bytes(8 << 20), mtime=0), mtime=0),
    b"200\ncontent-type: application/json\ncontent-encoding: deflate\n\n" + zlib.compress(b'{"errcode": 42001}'),
    b"200\ncontent-type: application/json\ncontent-encoding: br\n\n{}",
    b"400\ncontent-type: application/json\n\n" + b'{"a":' * 20_000,
    b"200\ncontent-type: text/event-stream\n\ndata: {}\n\n",
    b"204\ncontent-type: application/json\ncontent-length: 7\n\n",
    b"302\ncontent-type: application/json\nlocation: /y\n\n{}",
    b"200\ncontent-type: application/json\n\n" + b" " * 70_000,
)
_WORDS = (b"content-encoding: ", b"gzip", b"deflate", b"\x1f\x8b\x08\0", b"content-length: ", b"\n\n", b'"errcode":')

TARGETS = (
    *(
        Target(f"outgoing.{name}", partial(_body, KINDS[name]), _BODIES, _WORDS, 1 << 18)
        for name in ("oauth2", "feishu", "wecom", "dingtalk", "dingtalk_legacy")
    ),
    Target(
        "redirect",
        _redirect,
        _LOCATIONS,
        (b"{token}", b"%", b"%25", b"://", b"//", b"?", b"#", b"@", b":", b"[", b"xn--", _INSIDE),
        1 << 14,
    ),
)
"""All targets, by name."""
