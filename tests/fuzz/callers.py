"""Requests of callers: the API key in any headers, query and cookies; and requests to the test server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from tests.fuzz.messages import run
from tests.fuzz.oracles import Target, Violation, require
from tokenmw import APIKeySource
from tokenmw.testing import ProviderServer

__all__ = ["TARGETS"]

Headers = list[tuple[bytes, bytes]]

MAX_BYTES = 4096
_NAMES = ("key", "api_key")
_DEFAULT = APIKeySource()
_EVERYWHERE = APIKeySource(["authorization", "x-api-key"], query=_NAMES, cookies=_NAMES)
_IN_QUERY = APIKeySource([], query=["key"])
_IN_COOKIES = APIKeySource([], cookies=["key"])


def _scope(data: bytes) -> dict[str, Any]:
    """Make an ASGI scope of an input: the query in the first line, then header lines of any bytes."""
    query, *lines = data.split(b"\n")
    pairs = (line.partition(b":") for line in lines)
    headers: Headers = [(name.strip().lower(), value) for name, _, value in pairs]
    return {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": query}


def _key(data: bytes) -> None:
    scope = _scope(data)
    headers: Headers = scope["headers"]
    for source in (_DEFAULT, _EVERYWHERE, _IN_QUERY, _IN_COOKIES):
        found = source.find(scope)
        require(
            found is None or (type(found) is bytes and 0 < len(found) <= MAX_BYTES), "a key that is empty or too long"
        )
        require(found is None or _is_text(found), "a key that is no text")
        require(found == source.find(scope), "another key when read again")
        # Other headers have no influence, before or after those of the key.
        more = {**scope, "headers": [(b"x-other", b"k"), *headers, (b"accept", b"*/*")]}
        require(found == source.find(more), "a key that depends on other headers")
    _check_headers(headers, _DEFAULT.find(scope))
    _check_query(scope["query_string"], _IN_QUERY.find(scope))
    _check_cookies(scope, _IN_COOKIES.find(scope))


def _is_text(key: bytes) -> bool:
    return key == key.decode(errors="replace").encode()


def _check_headers(headers: Headers, found: bytes | None) -> None:
    """Require that a key is the only value of its header."""
    if found is None:
        return
    for header in (b"authorization", b"x-api-key", b"x-goog-api-key"):
        values = {value for name, value in headers if name == header}
        if any(value.strip().endswith(found) for value in values):
            require(len(values) == 1, "one of two keys")
            return
    raise Violation("a key that is in no header")


def _check_query(query: bytes, found: bytes | None) -> None:
    """Require the key that the standard library finds in a query."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=None)
    values = {value for name, value in pairs if name == "key"}
    key = values.pop().encode("latin-1", "replace") if len(values) == 1 else b""
    usable = 0 < len(key) <= MAX_BYTES and _is_text(key)
    require(found == (key if usable else None), "another key than that in the query")


def _check_cookies(scope: dict[str, Any], found: bytes | None) -> None:
    """Require the key that starlette finds, unless there are two cookie headers, or bytes that `str` strips."""
    sent = [value for name, value in scope["headers"] if name == b"cookie"]
    if found is not None and len(sent) == 1 and not set(sent[0]) & set(b"\x1c\x1d\x1e\x1f\x85\xa0"):
        jar = Request(scope).cookies
        require(jar.get("key", "").encode("latin-1", "replace") == found, "another key than that in the cookie")


async def _status(scope: dict[str, Any], body: bytes) -> int:
    """Return the status of the test server's response."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await ProviderServer().app(scope, receive, send)
    return status


def _provider_server(data: bytes) -> None:
    """Send a request to the test server: a path, a query, header lines, an empty line and a body."""
    path, _, rest = data.partition(b"\n")
    head, _, body = rest.partition(b"\n\n")
    scope: dict[str, Any] = {
        **_scope(head),
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    text = "/" + path.decode("latin-1").lstrip("/")
    # Servers accept no other bytes in a request target (RFC 9112 §3.2).
    query: bytes = scope["query_string"]
    scope["query_string"] = bytes(byte for byte in query if 0x20 < byte < 0x7F)
    scope |= {"path": text, "raw_path": path, "method": "POST" if body else "GET", "state": {}}
    require(200 <= run(_status(scope, body)) < 500, "an internal error of the test server")


_KEYS = (
    b"key=k&api_key=2\nauthorization:Bearer k\nx-api-key: k\ncookie:key=k; api_key=2",
    b"%6bey=%ff+%zz\nauthorization:Basic dTpw\nx-api-key:\xff\xfe",
    b"key=%c3%a9\nauthorization:Negotiate\nx-api-key:\xe9\ncookie:key=\xc3\xa9",
    b"key=a&key=b\nx-api-key:a\nx-api-key:b\ncookie:key=a;key=b",
    b'\nauthorization:Token\t k \ncookie:key="\\134\\"\\777"',
    b"key=" + b"%41" * 4_097 + b"\nx-goog-api-key:" + b"k" * 4_097,
    b"key\ncookie:key=\ncookie:api_key=1",
    b'\ncookie:key="' + b"\\" * 4_000 + b'"',
)
_WORDS = (
    b"key=",
    b"%6b",
    b"%",
    b"&",
    b"\nx-api-key:",
    b"\nauthorization:Bearer ",
    b'\ncookie:key="',
    b"\\",
    b";",
    b"\\777",
)
_FORM = b"\ncontent-type:application/x-www-form-urlencoded\n\n"
_REQUESTS = (
    b"oauth2/token\n" + _FORM + b"grant_type=client_credentials&client_id=c&client_secret=s",
    b"oauth2/token\n\nauthorization:Basic Yzpz" + _FORM + b"grant_type=client_credentials",
    b'open-apis/auth/v3/tenant_access_token/internal\n\n\n{"app_id": "c", "app_secret": "s"}',
    b"oauth2/token\n\nauthorization:Basic Yzpz\x88" + _FORM + b"grant_type=client_credentials",
    b"cgi-bin/gettoken\ncorpid=c&corpsecret=s",
    b'v1.0/oauth2/accessToken\n\ncontent-type:application/json\n\n{"appKey": "c", "appSecret": "s"}',
    b"gettoken\nappkey=c&appsecret=s",
    b"contoso.example/oauth2/v2.0/token\n"
    + _FORM
    + b"grant_type=client_credentials&client_id=c&client_secret=s&scope=a",
    b"metadata/identity/oauth2/token\napi-version=2018-02-01&resource=r\nmetadata:true",
    b"api/x\n\nauthorization:Bearer t",
)

TARGETS = (
    Target("api_key", _key, _KEYS, _WORDS, 1 << 16, (b'\ncookie:key="', b"key=")),
    Target(
        "provider_server",
        _provider_server,
        _REQUESTS,
        (b"Basic ", b"Bearer ", b"%00", b"\\ud800", b"client_assertion=", b'{"app_id": ', b"\xff", b"=", b"&"),
        1 << 16,
    ),
)
