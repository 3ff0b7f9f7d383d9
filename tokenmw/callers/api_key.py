"""Finding the API key of a request in headers, the query or cookies.

A key is the bytes that the request has: `Authorization: Bearer k` and `X-API-Key: k` are the same key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_strings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import Scope

__all__ = ["APIKeySource"]

_AUTHORIZATION: Final = b"authorization"
# The schemes used for API keys; `Basic`, `Digest` and the rest are other credentials.
_SCHEMES: Final = frozenset({b"bearer", b"apikey", b"api-key", b"token"})
# Visible ASCII without the characters that end a name in a header, a query or a cookie.
_NAME: Final = re.compile(r"[!#-+\-.-9<>-~]+")
_ESCAPED: Final = re.compile(rb"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)


class APIKeySource:
    """Finds the API key of a request: in headers, then in the query, then in cookies, in the order given.

    If a source is empty, longer than `max_bytes`, or given twice with different values, the request has no key and no
    later source is read: otherwise a request could present another key than the one a proxy in front has checked.

    Args:
        headers: Header names. From `Authorization` the schemes Bearer, ApiKey, Api-Key and Token are taken, and a value
            without any scheme.
        query: Names of query parameters. They are in access logs of servers and proxies; prefer a header.
        cookies: Names of cookies.
        max_bytes: The longest key that is accepted, in bytes.

    Raises:
        ConfigurationError: A name is malformed, a lone string stands for a list, or no source is named.
    """

    __slots__ = ("_cookies", "_headers", "_max", "_query", "cookies", "headers", "query")

    def __init__(
        self,
        headers: Sequence[str] = ("authorization", "x-api-key", "x-goog-api-key"),
        *,
        query: Sequence[str] = (),
        cookies: Sequence[str] = (),
        max_bytes: int = 4096,
    ) -> None:
        self.headers = _names("headers", headers, lower=True)
        self.query = _names("query", query)
        self.cookies = _names("cookies", cookies)
        if not (self.headers or self.query or self.cookies):
            raise ConfigurationError("APIKeySource needs at least one of headers, query and cookies.")
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise ConfigurationError("APIKeySource(max_bytes=…) must be a positive whole number.")
        self._headers = tuple(name.encode("latin-1") for name in self.headers)
        self._query = tuple(name.encode() for name in self.query)
        self._cookies = tuple(name.encode() for name in self.cookies)
        self._max = max_bytes

    def find(self, scope: Scope) -> bytes | None:
        """Return the API key of an ASGI connection, or None."""
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        for wanted in self._headers:
            found: bytes | None = None
            for name, value in headers:
                if name == wanted:
                    if found is not None and value != found:
                        return None
                    found = value
            if found is not None:
                key = _unschemed(found) if wanted == _AUTHORIZATION else found.strip()
                if key is not None:
                    return key if key and len(key) <= self._max else None  # inline: on the path of every request
        if self._query and scope.get("query_string"):
            key = self._in_query(scope["query_string"])
            if key is not None:
                return self._bounded(key)
        return self._in_cookies(headers) if self.cookies else None

    def _bounded(self, key: bytes) -> bytes | None:
        return key if key and len(key) <= self._max else None

    def _in_query(self, query: bytes) -> bytes | None:
        found: dict[bytes, set[bytes]] = {}
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            name = unquote_to_bytes(name)
            if name in self._query:
                found.setdefault(name, set()).add(unquote_to_bytes(value.replace(b"+", b" ")))
        for name in self._query:
            if name in found:
                return found[name].pop() if len(found[name]) == 1 else b""
        return None

    def _in_cookies(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        jar: dict[bytes, set[bytes]] = {}
        for header, cookies in headers:
            if header == b"cookie":
                for pair in cookies.split(b";"):
                    name, _, value = pair.partition(b"=")
                    if name.strip() in self._cookies:
                        jar.setdefault(name.strip(), set()).add(_unquoted(value.strip()))
        for name in self._cookies:
            if name in jar:
                return self._bounded(jar[name].pop()) if len(jar[name]) == 1 else None
        return None

    def __repr__(self) -> str:
        return f"APIKeySource(headers={self.headers!r}, query={self.query!r}, cookies={self.cookies!r})"


def _unschemed(value: bytes) -> bytes | None:
    if value[:7] == b"Bearer ":
        return value[7:].strip()  # nearly all requests; the same as below in fewer steps
    words = value.split(None, 1)
    if words and words[0].lower() in _SCHEMES:
        return words[1].strip() if len(words) == 2 else b""  # a scheme alone is an empty key
    return None if len(words) == 2 else value.strip()


def _unquoted(value: bytes) -> bytes:
    """Return the value of a cookie without the quotes and escapes with which `http.cookies` writes some bytes.

    `http.cookies` takes quadratic time to read them before Python 3.11.10 and 3.12.6: seconds for one request's header.
    """
    if len(value) < 2 or not value.startswith(b'"') or not value.endswith(b'"'):
        return value
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]) if found[1] else found[2], value[1:-1])


def _names(option: str, given: Iterable[str], *, lower: bool = False) -> tuple[str, ...]:
    names = checked_strings(given, option=f"APIKeySource({option}=…)")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"APIKeySource({option}=…): {name!r} is not a name of a header, parameter or cookie."
            )
    return tuple(name.lower() if lower else name for name in names)
