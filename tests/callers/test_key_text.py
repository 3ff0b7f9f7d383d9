"""An API key is UTF-8, so that one text is one key for `authenticate`, the session, and `broker.session_id`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from tests.asgi_client import answering, call, session_of
from tokenmw import APIKeySource, ConfigurationError, TokenBroker, TokenMiddleware

EVERYWHERE = APIKeySource(["authorization", "x-api-key"], query=["key"], cookies=["key"])
E_IN_LATIN_1 = "é".encode("latin-1")


def header(name: bytes, value: bytes) -> dict[str, Any]:
    """Return the part of a scope that has one header."""
    return {"headers": [(name, value)]}


def escaped(key: bytes, pattern: bytes) -> bytes:
    """Return a key with each byte written by a pattern."""
    return b"".join(pattern % byte for byte in key)


PLACES: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "a header": lambda key: header(b"x-api-key", key),
    "a bearer token": lambda key: header(b"authorization", b"Bearer " + key),
    "another scheme": lambda key: header(b"authorization", b"ApiKey " + key),
    "no scheme": lambda key: header(b"authorization", key),
    "the query": lambda key: {"query_string": b"key=" + key},
    "the query, escaped": lambda key: {"query_string": b"key=" + escaped(key, b"%%%02X")},
    "a cookie": lambda key: header(b"cookie", b"key=" + key),
    "a quoted cookie": lambda key: header(b"cookie", b'key="%s"' % escaped(key, b"\\%03o")),
}
NOT_UTF_8 = [
    E_IN_LATIN_1,
    b"\xff\xfe",
    b"\xed\xa0\x80",  # a surrogate
    b"\xc0\xaf",  # a slash in more bytes than it needs
    b"k\xc3",
    b"\xf5\x80\x80\x80",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", NOT_UTF_8)
async def test_a_key_that_is_not_utf_8_is_no_key(place: str, key: bytes) -> None:
    """In every source: 401 with `reject`, a session id of its own without, and `authenticate` does not see it."""
    seen: list[str] = []
    async with TokenBroker({}, api_key=EVERYWHERE, authenticate=lambda _connection, text: seen.append(text)) as broker:
        strict = TokenMiddleware(answering(session_of), broker=broker, missing_key="reject")
        assert 401 == (await call(strict, **PLACES[place](key))).status
        app = TokenMiddleware(answering(session_of), broker=broker)
        first, second = [await call(app, **PLACES[place](key)) for _ in range(2)]
    assert [200, 200] == [first.status, second.status]
    assert first.json != second.json
    assert not seen


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["é", "鍵", "k-1", "\u00e9\u0301", "\ufeffk"])
async def test_one_text_is_one_key(place: str, key: str) -> None:
    """`authenticate`, the session of a request, and `broker.session_id` of text or bytes mean the same key."""

    async def authenticate(_connection: HTTPConnection, text: str) -> str:
        return text

    async def both(scope: Any) -> Any:
        return [scope["state"]["caller"], scope["state"]["session_id"]]

    async with TokenBroker({}, api_key=EVERYWHERE, authenticate=authenticate) as broker:
        response = await call(TokenMiddleware(answering(both), broker=broker), **PLACES[place](key.encode()))
        assert [key, await broker.session_id(key)] == response.json
        assert await broker.session_id(key.encode()) == await broker.session_id(key)


@pytest.mark.parametrize("key", NOT_UTF_8)
async def test_the_broker_takes_no_other_bytes(key: bytes) -> None:
    """No request can have such a key, so a session id of it would be of no use."""
    async with TokenBroker({}) as broker:
        for method in (broker.session_id, broker.reset_session):
            with pytest.raises(ConfigurationError, match=r"api_key must be .* UTF-8"):
                await method(key)


SCHEMES = [
    "Basic",
    "Digest",
    "Negotiate",
    "NTLM",
    "DPoP",
    "GNAP",
    "HOBA",
    "Mutual",
    "OAuth",
    "PrivateToken",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "vapid",
    "Concealed",
    "AWS4-HMAC-SHA256",
    "Hawk",
    "Kerberos",
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("pattern", ["%s", " %s ", "%s\t", "%s credentials"])
async def test_a_scheme_alone_is_no_key(scheme: str, pattern: str) -> None:
    """In any case, and as with its credentials the next source is read."""
    source = APIKeySource()
    for written in (scheme, scheme.lower(), scheme.upper()):
        header = (b"authorization", (pattern % written).encode())
        assert source.find({"headers": [header]}) is None
        assert source.find({"headers": [header, (b"x-api-key", b"k")]}) == b"k"


@pytest.mark.parametrize("key", ["sk-live-7", "basics", "negotiate-1", "Basic:", "=", "digest=="])
def test_any_other_text_without_a_scheme_is_a_key(key: str) -> None:
    """Names of schemes are compared as a whole."""
    assert APIKeySource().find({"headers": [(b"authorization", key.encode())]}) == key.encode()
