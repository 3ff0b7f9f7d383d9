"""Finding the API key of a request in headers, the query or cookies.

A key is the bytes that the request has: `Authorization: Bearer k` and `X-API-Key: k` are the same key. They are UTF-8,
so that each key is one text: `é` in latin-1 would be another key for the session, and the same one for `authenticate`.
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
# The schemes used for API keys.
_SCHEMES: Final = frozenset({b"bearer", b"apikey", b"api-key", b"token"})
# Schemes of other credentials: those registered at IANA, and those in wide use. One of them alone is no key without a
# scheme: a client that has no credentials would share its session with all others that have none.
_OTHER_SCHEMES: Final = frozenset(
    b"aws4-hmac-sha256 basic concealed digest dpop gnap hawk hoba kerberos mutual negotiate ntlm oauth privatetoken "
    b"scram-sha-1 scram-sha-256 vapid".split()
)
# Visible ASCII without the characters that end a name in a header, a query or a cookie.
_NAME: Final = re.compile(r"[!#-+\-.-9<>-~]+")
# Shown to the caller.
_TOO_LONG: Final = "The API key of this request is too long."
_NOT_TEXT: Final = "The API key of this request is not UTF-8 text."
_TWICE: Final = "This request has more than one API key: send one."
_ESCAPED: Final = re.compile(rb"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)


class APIKeySource:
    """Finds the API key of a request: in headers, then in the query, then in cookies, in the order given.

    If a source is empty, longer than `max_bytes`, not UTF-8, or given twice with different values, the request has no
    key and no later source is read: otherwise a request could present another key than the one a proxy in front has
    checked.

    Args:
        headers: Header names. From `Authorization` the schemes Bearer, ApiKey, Api-Key and Token are taken, and a value
            without any scheme that is not the name of another one.
        query: Names of query parameters. They are in access logs of servers and proxies; prefer a header.
        cookies: Names of cookies.
        max_bytes: The longest key that is accepted, in bytes.

    Raises:
        ConfigurationError: A name is malformed, a lone string stands for a list, or no source is named.
    """

    __slots__ = ("_cookies", "_headers", "_lengths", "_query", "cookies", "headers", "query")

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
        self._lengths = range(1, max_bytes + 1)

    def find(self, scope: Scope) -> bytes | None:
        """Return the API key of an ASGI connection, or None."""
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        key: bytes | None
        for wanted in self._headers:
            found: bytes | None = None
            for name, value in headers:
                if name == wanted:
                    if found is not None and value != found:
                        return None
                    found = value
            if found is not None:
                # On the path of every request: nearly all have this case, and `_usable` would be one more call.
                if found[:7] == b"Bearer " and wanted == _AUTHORIZATION:
                    key = found[7:].strip()
                else:
                    key = _key_in(wanted, found)
                    if key is None:
                        continue
                return key if len(key) in self._lengths and (key.isascii() or _is_text(key)) else None
        if not self._query and not self._cookies:
            return None
        keys = self._below_headers(scope)
        return self._usable(keys.pop()) if len(keys) == 1 else None

    def _usable(self, key: bytes) -> bytes | None:
        return key if len(key) in self._lengths and _is_text(key) else None

    def problem(self, scope: Scope) -> str | None:
        """Return why the API key of an ASGI connection cannot be used: a sentence for the caller, without the key.

        None if it can be used, and if the connection has none.
        """
        keys = self._in_headers(scope["headers"]) or self._below_headers(scope)
        if len(keys) > 1:
            return _TWICE
        for key in keys:
            if len(key) >= self._lengths.stop:
                return _TOO_LONG
            if not _is_text(key):
                return _NOT_TEXT
        return None

    def _in_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
        """Return the keys in the first header that has any; two different values of a header count as two keys."""
        for wanted in self._headers:
            values = {value for name, value in headers if name == wanted}
            keys = {key for key in (_key_in(wanted, value) for value in values) if key is not None}
            if keys or len(values) > 1:
                return values if len(values) > 1 else keys
        return set()

    def _below_headers(self, scope: Scope) -> set[bytes]:
        """Return the different keys of the first parameter of the query, or else of the first cookie, that has any."""
        keys = self._in_query(scope.get("query_string") or b"") if self._query else set[bytes]()
        return keys or (self._in_cookies(scope["headers"]) if self._cookies else set[bytes]())

    def _in_query(self, query: bytes) -> set[bytes]:
        found: dict[bytes, set[bytes]] = {}
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            name = unquote_to_bytes(name)
            if name in self._query:
                found.setdefault(name, set()).add(unquote_to_bytes(value.replace(b"+", b" ")))
        return next((found[name] for name in self._query if name in found), set[bytes]())

    def _in_cookies(self, headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
        jar: dict[bytes, set[bytes]] = {}
        for header, cookies in headers:
            if header == b"cookie":
                for pair in cookies.split(b";"):
                    name, _, value = pair.partition(b"=")
                    if name.strip() in self._cookies:
                        jar.setdefault(name.strip(), set()).add(_unquoted(value.strip()))
        return next((jar[name] for name in self._cookies if name in jar), set[bytes]())

    def __repr__(self) -> str:
        return f"APIKeySource(headers={self.headers!r}, query={self.query!r}, cookies={self.cookies!r})"


def _key_in(header: bytes, value: bytes) -> bytes | None:
    """Return the key in a header's value; b"" if it is empty, None if the header holds another credential."""
    if header != _AUTHORIZATION:
        return value.strip()
    words = value.split(None, 1)
    scheme = words[0].lower() if words else b""
    if scheme in _SCHEMES:
        return words[1].strip() if len(words) == 2 else b""  # a scheme alone is an empty key
    return None if len(words) == 2 or scheme in _OTHER_SCHEMES else value.strip()


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


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
