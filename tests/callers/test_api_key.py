"""The API key of a request is found in the configured sources and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmw import APIKeySource, ConfigurationError

DEFAULT = APIKeySource()
EVERYWHERE = APIKeySource(["authorization", "x-api-key"], query=["key", "api_key"], cookies=["key", "k2"])

Headers = list[tuple[bytes, bytes]]


def scope(headers: Headers, query: bytes = b"") -> dict[str, Any]:
    """Make the part of an ASGI scope that the source reads."""
    return {"type": "http", "headers": headers, "query_string": query}


AUTH, X, GOOG, COOKIE = b"authorization", b"x-api-key", b"x-goog-api-key", b"cookie"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([(b"host", b"example")], None),
        ([(AUTH, b"Bearer k")], b"k"),
        ([(AUTH, b"bearer   k ")], b"k"),
        ([(AUTH, b"BEARER\tk")], b"k"),
        ([(AUTH, b"Bearer \ta\tb ")], b"a\tb"),  # the bytes of the request, the same as in X-API-Key
        ([(AUTH, b"token\ta\tb")], b"a\tb"),
        ([(AUTH, b"ApiKey k")], b"k"),
        ([(AUTH, b"Api-Key k")], b"k"),
        ([(AUTH, b"Token k")], b"k"),
        ([(AUTH, b"k")], b"k"),
        ([(X, b"k")], b"k"),
        ([(X, b" k ")], b"k"),
        ([(X, b"Bearer k")], b"Bearer k"),  # a header of its own has no schemes
        ([(GOOG, b"k")], b"k"),
        ([(X, b"\xc3\xa9 k")], b"\xc3\xa9 k"),
        ([(X, b"\xff\xfe \xc3\xa9")], None),  # not UTF-8
        ([(X, b"\xe9"), (GOOG, b"k")], None),
        # Other credentials are not API keys, and do not hide one.
        ([(AUTH, b"Basic dTpw")], None),
        ([(AUTH, b"Digest username=u")], None),
        ([(AUTH, b"Basic")], None),
        ([(AUTH, b"negotiate"), (X, b"k")], b"k"),
        ([(AUTH, b"Basic dTpw"), (X, b"k")], b"k"),
        ([(AUTH, b"two words"), (X, b"k")], b"k"),
        # The order of the sources decides, not that of the headers.
        ([(X, b"second"), (AUTH, b"Bearer first")], b"first"),
        ([(GOOG, b"third"), (X, b"second")], b"second"),
        # An empty source: no key, and no later source is read.
        ([(AUTH, b"")], None),
        ([(AUTH, b"Bearer"), (X, b"k")], None),
        ([(AUTH, b"Bearer  "), (X, b"k")], None),
        ([(AUTH, b""), (X, b"k")], None),
        ([(X, b" "), (GOOG, b"k")], None),
        # Given twice: one key if the values are equal, none if they differ.
        ([(X, b"k"), (X, b"k")], b"k"),
        ([(X, b"k"), (X, b"other")], None),
        ([(AUTH, b"Bearer k"), (AUTH, b"Bearer other"), (X, b"k")], None),
        ([(AUTH, b"Basic dTpw"), (AUTH, b"Bearer k")], None),
    ],
)
def test_key_in_headers(headers: Headers, found: bytes | None) -> None:
    """Headers are read in the source's order; from Authorization, only the schemes used for API keys are taken."""
    assert found == DEFAULT.find(scope(headers))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", None),
        (b"a=1&b=2", None),
        (b"key=k", b"k"),
        (b"a=1&key=k&b", b"k"),
        (b"%6bey=k", b"k"),
        (b"key=a%2Bb%20c+d%", b"a+b c d%"),
        (b"key=%c3%a9%00", b"\xc3\xa9\x00"),
        (b"key=%ff%00", None),
        (b"key=%e9&api_key=k", None),
        (b"key=%zz", b"%zz"),
        (b"key=a=b", b"a=b"),
        (b"api_key=k2&key=k1", b"k1"),
        (b"key=&api_key=k", None),
        (b"key", None),
        (b"key=k&key=k", b"k"),
        (b"key=k&key=%6b", b"k"),
        (b"key=k&key=other", None),
        (b"key=k&key=other&api_key=k", None),
        (b"key=k&key=", None),
    ],
)
def test_key_in_the_query(query: bytes, found: bytes | None) -> None:
    """Percent-encoding is decoded; the rules for empty and repeated values are those of headers."""
    assert found == EVERYWHERE.find(scope([], query))
    assert DEFAULT.find(scope([], query)) is None


@pytest.mark.parametrize(
    ("cookies", "found"),
    [
        ([b"a=1; b=2"], None),
        ([b"key=k"], b"k"),
        ([b" a=1 ;key = k ; b"], b"k"),
        ([b'key="k"'], b"k"),
        ([b'key="\\134\\"\\303\\251\\1k\\"'], b'\\"\xc3\xa91k\\'),
        ([b'key="\\377"'], None),
        ([b'key="'], b'"'),
        ([b"key=\xc3\xa0"], b"\xc3\xa0"),
        ([b"key=\xff"], None),
        ([b"k2=2; key=1"], b"1"),
        ([b"a=1", b"key=k"], b"k"),  # HTTP/2 may split the header
        ([b"key=; k2=k"], None),
        ([b"key=k; key=k"], b"k"),
        ([b"key=k; key=other"], None),
        ([b"key=k", b"key=other"], None),
        ([b"key=k; key=other; k2=k"], None),
        ([b";;=;"], None),
    ],
)
def test_key_in_cookies(cookies: list[bytes], found: bytes | None) -> None:
    """The rules for empty and repeated values are those of headers."""
    headers = [(COOKIE, cookie) for cookie in cookies]
    assert found == EVERYWHERE.find(scope(headers))
    assert DEFAULT.find(scope(headers)) is None


def test_headers_come_before_the_query_and_the_query_before_cookies() -> None:
    """The first source that the request has decides, whether its key is valid or not."""
    cookie = (COOKIE, b"key=c")
    assert EVERYWHERE.find(scope([cookie, (X, b"h")], b"key=q")) == b"h"
    assert EVERYWHERE.find(scope([cookie], b"key=q")) == b"q"
    assert EVERYWHERE.find(scope([cookie])) == b"c"
    assert EVERYWHERE.find({"type": "websocket", "headers": [cookie]}) == b"c"
    assert EVERYWHERE.find(scope([cookie, (X, b"")], b"key=q")) is None
    assert EVERYWHERE.find(scope([cookie], b"key=")) is None


@pytest.mark.parametrize("place", ["header", "authorization", "query", "cookie"])
def test_a_key_longer_than_max_bytes_is_ignored(place: str) -> None:
    """The bound applies to the decoded key in each source, and a longer key is not truncated."""
    source = APIKeySource(query=["key"], cookies=["key"], max_bytes=8)

    def find(key: bytes) -> bytes | None:
        match place:
            case "header":
                return source.find(scope([(X, key)]))
            case "authorization":
                return source.find(scope([(AUTH, b"Bearer " + key), (X, b"k")]))
            case "query":
                return source.find(scope([], b"key=" + key.replace(b"x", b"%78")))
            case _:
                return source.find(scope([(COOKIE, b"a=1; key=" + key)]))

    assert find(b"x" * 8) == b"x" * 8
    assert find(b"x" * 9) is None


ANY = st.binary(max_size=40) | st.sampled_from(
    [
        b"key",
        b"Bearer ",
        b"bearer",
        b"%",
        b"%f",
        b"\xff",
        b"key=k",
        b'key="\\777"',
        b"key=\\",
        b"&key=",
        b";key=;",
        b"\x00",
    ]
)
NAMES = st.sampled_from([AUTH, X, GOOG, COOKIE]) | ANY


@settings(max_examples=400, deadline=None)
@given(
    headers=st.lists(st.tuples(NAMES, st.lists(ANY, max_size=4).map(b"".join)), max_size=6),
    query=st.lists(ANY).map(b"".join),
)
def test_no_request_makes_it_raise(headers: Headers, query: bytes) -> None:
    """Any bytes give None, or a key within the bound that is not empty."""
    for source in (DEFAULT, EVERYWHERE):
        found = source.find(scope(headers, query))
        assert found is None or 0 < len(found) <= 4096


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": "x-api-key"}, r"headers=…\) takes a list of names, not a lone string: \['x-api-key'\]"),
        ({"query": b"key"}, "query"),
        ({"cookies": "key"}, "cookies"),
        ({"headers": None}, "headers"),
        ({"query": 5}, "query"),
        ({"headers": [None]}, "None is not a name"),
        ({"headers": [b"x-api-key"]}, "is not a name"),
        ({"headers": [""]}, "is not a name"),
        ({"headers": ["x api key"]}, "is not a name"),
        ({"headers": ["x-api-key:"]}, "is not a name"),
        ({"headers": ["schlüssel"]}, "is not a name"),
        ({"headers": ["x\x7f"]}, "is not a name"),
        ({"cookies": ["a=b"]}, "is not a name"),
        ({"headers": []}, "at least one"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": True}, "max_bytes"),
        ({"max_bytes": 1.5}, "max_bytes"),
    ],
)
def test_an_invalid_source_is_refused_when_made(options: dict[str, Any], message: str) -> None:
    """The error names the option and what is wrong with it."""
    with pytest.raises(ConfigurationError, match=message):
        APIKeySource(**options)


def test_names_may_come_from_any_iterable_in_any_case() -> None:
    """Header names are compared in lower case, as servers send them; parameters and cookies as they are."""
    source = APIKeySource((name for name in ("X-Key",)), query={"Key"})  # type: ignore[arg-type]
    assert source.find(scope([(b"x-key", b"k")])) == b"k"
    assert (source.find(scope([], b"Key=k")), source.find(scope([], b"key=k"))) == (b"k", None)
    assert repr(source) == "APIKeySource(headers=('x-key',), query=('Key',), cookies=())"
