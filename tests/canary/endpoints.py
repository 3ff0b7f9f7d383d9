"""Token endpoints and APIs that repeat in their answers whatever they were sent, in each way there is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, unquote_plus

from tests.canary.canaries import MARK, canary, hits

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WAYS", "Endpoints"]

_REFUSED: Final = {"errcode": 40001, "code": 10014, "error": "invalid_client", "error_codes": [7000215]}
_TLS: Final = b"\x16"  # the first byte of a handshake (RFC 8446 §5.1)
_MEDIA: Final = {"content-type": "application/json"}


class Endpoints:
    """A server whose paths are `/{way}/{kind}/…`: it answers in that way, and grants tokens of that kind.

    Attributes:
        port: Where it listens.
        asked: How often it was asked in each way.
        received: The kinds of the secrets that it was sent.
        hanging: Set as soon as somebody waits for an answer that never comes.
    """

    def __init__(self) -> None:
        self.port = 0
        self.asked: Counter[str] = Counter()
        self.received: set[str] = set()
        self.hanging = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in list(self._links):
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                first = await reader.readexactly(1)
                if first == b"*":
                    await _be_no_redis(reader, writer)
                if first in (b"*", _TLS):
                    return
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                body = (await reader.readexactly(int(length[1]) if length else 0)).decode("latin-1")
                way, kind = head.split(" ")[1].partition("?")[0].split("/")[1:3]
                self.asked[way] += 1
                if way == "hangs":
                    self.hanging.set()
                    await asyncio.get_running_loop().create_future()
                token = canary(f"token of {kind}") + f".{self.asked.total()}"
                asked = _Asked(head, body, token)
                self.received |= {hit.kind for hit in hits(asked.text.encode())}
                writer.write(WAYS[way](asked))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()


async def _be_no_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a Redis that does not know the command, and repeats it."""
    while said := await reader.read(65536):
        words = b" ".join(said.split())
        writer.write(b"-ERR unknown command 'HELLO', with args beginning with: %b\r\n" % words)
        await writer.drain()


class _Asked:
    """A request.

    Attributes:
        text: All of it, in the clear, in one line.
        secret: The secret in it, as it stood there: in base64 if it came so.
        query: Its query.
        token: A token that may be granted.
    """

    def __init__(self, head: str, body: str, token: str) -> None:
        basic = re.search(r"authorization: basic (\S+)", head, re.IGNORECASE)
        pair = base64.b64decode(basic[1]).decode() if basic else ""
        self.text = " ".join(unquote_plus(f"{head} {pair} {body}").split())
        clear = re.search(rf"{MARK}\S*?{MARK}", unquote_plus(body) + self.text)
        self.secret = basic[1] if basic else clear[0] if clear else ""
        self.query = head.split(" ")[1].partition("?")[2]
        self.token = token

    def granted(self, **fields: Any) -> dict[str, Any]:
        """Return what all platforms call a token, and its life."""
        names = ("access_token", "tenant_access_token", "app_access_token", "accessToken")
        lives = ("expires_in", "expire", "expireIn")
        repeated = {"client_secret": self.secret, "request": self.text, self.secret: "a name"}
        return {**dict.fromkeys(names, self.token), **dict.fromkeys(lives, 7200), **repeated, **fields}


def _response(status: int, body: Any, *, reason: str = "Some reason", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {**_MEDIA, "content-length": str(len(content)), "connection": "close"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1") + content


def _page(asked: _Asked) -> bytes:
    return f"<html><pre>{asked.text}</pre></html>".encode()


def _redirect(asked: _Asked) -> bytes:
    return _response(
        302, {}, location=f"http://elsewhere.example/?{quote(asked.text)}&{asked.query}", x_sent=asked.text
    )


def _refused(asked: _Asked) -> bytes:
    texts = {"error_description": asked.text, "errmsg": asked.text, "msg": asked.text, "message": asked.text}
    return _response(401, _REFUSED | texts, x_sent=asked.text, www_authenticate=f'Basic realm="{asked.text}"')


def _refused_by_code(asked: _Asked) -> bytes:
    # The longest piece of it that could be a code.
    piece = max(re.findall(r"[A-Za-z0-9_.-]{1,64}", asked.secret) or [""], key=len)
    return _response(400, dict.fromkeys(("error", "errcode", "code"), piece))


def _api_refuses(asked: _Asked) -> bytes:
    # WeCom's and DingTalk's way to say it, and that of RFC 6750.
    code = {"errcode": 42001, "code": 99991663, "text": asked.text}
    return _response(401 if "authorization:" in asked.text.lower() else 200, code)


WAYS: Final[dict[str, Callable[[_Asked], bytes]]] = {
    "grants": lambda asked: _response(200, asked.granted()),
    "refuses": _refused,
    "refuses-by-code": _refused_by_code,
    "is-busy": lambda asked: _response(429, {"error": asked.text}, retry_after="1", x_sent=asked.text),
    "fails": lambda asked: _response(500, _page(asked), content_type="text/html"),
    "fails-in-words": lambda asked: _response(500, {}, reason=asked.text),
    "sends-a-page": lambda asked: _response(200, _page(asked), content_type=asked.text),
    "sends-garbage": lambda asked: (
        b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"access_token": "' + asked.text.encode()
    ),
    "redirects": _redirect,
    "grants-two-lines": lambda asked: _response(200, asked.granted(access_token=f"{asked.secret}\r\nX: y", expire="x")),
    "grants-no-life": lambda asked: _response(200, asked.granted(expires_in=asked.secret, expire={"a": asked.secret})),
    "grants-a-type": lambda asked: _response(200, asked.granted(token_type=asked.secret)),
    "sets-a-cookie": lambda asked: _response(503, {}, set_cookie=f"sent={asked.text}; path=/"),
    "breaks-http": lambda asked: f"HTTP/1.1 200 OK\r\n no header {asked.text}\r\n\r\n".encode("latin-1"),
    "is-no-http": lambda asked: asked.text.encode("latin-1") + b"\r\n\r\n",
    "is-cut": lambda asked: _response(200, {}, content_length="99", x_sent=asked.text),
    "closes": lambda _asked: b"",
    "hangs": lambda _asked: b"",
    "api-takes": lambda asked: _response(200, {"errcode": 0, "code": 0}),
    "api-refuses": _api_refuses,
    "api-redirects": lambda asked: _response(302, {}, location=f"/api-takes/x/there?again={asked.query}"),
}
"""What can stand in a path, and how it answers. Nothing is said in answer to "hangs"."""
