"""Token endpoints and APIs that repeat in their responses what they received, in many places and formats."""

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

__all__ = ["BEHAVIOURS", "Endpoints"]

_REFUSED: Final = {"errcode": 40001, "code": 10014, "error": "invalid_client", "error_codes": [7000215]}
_TLS: Final = b"\x16"  # the first byte of a handshake (RFC 8446 §5.1)
_MEDIA: Final = {"content-type": "application/json"}


class Endpoints:
    """A server with paths `/{behaviour}/{kind}/…`: it responds with that behaviour and grants tokens of that kind.

    Attributes:
        port: The port of the server.
        requests: The number of requests, by behaviour.
        received: The kinds of the secrets that it received.
        hanging: Set as soon as a client waits for a response that never comes.
    """

    def __init__(self) -> None:
        self.port = 0
        self.requests: Counter[str] = Counter()
        self.received: set[str] = set()
        self.hanging = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                first = await reader.readexactly(1)
                if first == b"*":
                    await _answer_unknown_command(reader, writer)
                if first in (b"*", _TLS):
                    return
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                body = (await reader.readexactly(int(length[1]) if length else 0)).decode("latin-1")
                behaviour, kind = head.split(" ")[1].partition("?")[0].split("/")[1:3]
                self.requests[behaviour] += 1
                if behaviour == "hangs":
                    self.hanging.set()
                    await asyncio.get_running_loop().create_future()
                token = canary(f"token of {kind}") + f".{self.requests.total()}"
                request = _Request(head, body, token)
                self.received |= {hit.kind for hit in hits(request.text.encode())}
                writer.write(BEHAVIOURS[behaviour](request))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()


async def _answer_unknown_command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond like a Redis that does not know a command: its error repeats the arguments."""
    while received := await reader.read(65536):
        words = b" ".join(received.split())
        writer.write(b"-ERR unknown command 'HELLO', with args beginning with: %b\r\n" % words)
        await writer.drain()


class _Request:
    """A request.

    Attributes:
        text: All of it, decoded, in one line.
        secret: The secret in it; in base64 if it was sent in base64.
        query: Its query.
        token: The token to grant.
    """

    def __init__(self, head: str, body: str, token: str) -> None:
        basic = re.search(r"authorization: basic (\S+)", head, re.IGNORECASE)
        pair = base64.b64decode(basic[1]).decode() if basic else ""
        self.text = " ".join(unquote_plus(f"{head} {pair} {body}").split())
        plain = re.search(rf"{MARK}\S*?{MARK}", unquote_plus(body) + self.text)
        self.secret = basic[1] if basic else plain[0] if plain else ""
        self.query = head.split(" ")[1].partition("?")[2]
        self.token = token

    def granted(self, **fields: Any) -> dict[str, Any]:
        """Return a token and its lifetime under the field names of all platforms."""
        names = ("access_token", "tenant_access_token", "app_access_token", "accessToken")
        lifetimes = ("expires_in", "expire", "expireIn")
        repeated = {"client_secret": self.secret, "request": self.text, self.secret: "a name"}
        return {**dict.fromkeys(names, self.token), **dict.fromkeys(lifetimes, 7200), **repeated, **fields}


def _response(status: int, body: Any, *, reason: str = "Some reason", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {**_MEDIA, "content-length": str(len(content)), "connection": "close"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1") + content


def _page(request: _Request) -> bytes:
    return f"<html><pre>{request.text}</pre></html>".encode()


def _redirect(request: _Request) -> bytes:
    return _response(
        302, {}, location=f"http://elsewhere.example/?{quote(request.text)}&{request.query}", x_sent=request.text
    )


def _refused(request: _Request) -> bytes:
    texts = {"error_description": request.text, "errmsg": request.text, "msg": request.text, "message": request.text}
    return _response(401, _REFUSED | texts, x_sent=request.text, www_authenticate=f'Basic realm="{request.text}"')


def _refused_by_code(request: _Request) -> bytes:
    # The longest part of the secret that could be an error code.
    code = max(re.findall(r"[A-Za-z0-9_.-]{1,64}", request.secret) or [""], key=len)
    return _response(400, dict.fromkeys(("error", "errcode", "code"), code))


def _api_refuses(request: _Request) -> bytes:
    # WeCom and Feishu say it by a code in the body, RFC 6750 by the status.
    body = {"errcode": 42001, "code": 99991663, "text": request.text}
    return _response(401 if "authorization:" in request.text.lower() else 200, body)


BEHAVIOURS: Final[dict[str, Callable[[_Request], bytes]]] = {
    "grants": lambda request: _response(200, request.granted()),
    "refuses": _refused,
    "refuses-by-code": _refused_by_code,
    "is-busy": lambda request: _response(429, {"error": request.text}, retry_after="1", x_sent=request.text),
    "fails": lambda request: _response(500, _page(request), content_type="text/html"),
    "fails-with-a-reason-phrase": lambda request: _response(500, {}, reason=request.text),
    "sends-a-page": lambda request: _response(200, _page(request), content_type=request.text),
    "sends-garbage": lambda request: (
        b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"access_token": "' + request.text.encode()
    ),
    "redirects": _redirect,
    "grants-two-lines": lambda request: _response(
        200, request.granted(access_token=f"{request.secret}\r\nX: y", expire="x")
    ),
    "grants-no-lifetime": lambda request: _response(
        200, request.granted(expires_in=request.secret, expire={"a": request.secret})
    ),
    "grants-a-type": lambda request: _response(200, request.granted(token_type=request.secret)),
    "sets-a-cookie": lambda request: _response(503, {}, set_cookie=f"sent={request.text}; path=/"),
    "breaks-http": lambda request: f"HTTP/1.1 200 OK\r\n no header {request.text}\r\n\r\n".encode("latin-1"),
    "is-not-http": lambda request: request.text.encode("latin-1") + b"\r\n\r\n",
    "is-truncated": lambda request: _response(200, {}, content_length="99", x_sent=request.text),
    "closes": lambda _request: b"",
    "hangs": lambda _request: b"",
    "api-accepts": lambda request: _response(200, {"errcode": 0, "code": 0}),
    "api-refuses": _api_refuses,
    "api-redirects": lambda request: _response(302, {}, location=f"/api-accepts/x/there?again={request.query}"),
}
"""The response of each behaviour. "hangs" never responds, so its bytes are never sent."""
