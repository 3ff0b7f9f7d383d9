"""A token in a URL: it stays out of log lines and error texts, and no redirect may repeat it.

The client makes the request of a redirect by itself: an auth object sees it only after it was sent and logged. Two
things of the first request reach into it. Its `trace` extension is copied, and transports over httpcore call it before
they send anything. And the client reads `request.url.fragment`, only to build the next URL. So with such a transport
each redirect is checked; with any other one, redirects of requests with a token in the URL are refused.
"""

from __future__ import annotations

import base64
import functools
import sys
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from types import ModuleType

    Trace = Callable[[str, Any], Awaitable[None]]

__all__ = ["RedirectGuard", "forms_of", "hide_token", "repeats"]

_MAX_DECODINGS: Final = 8  # a URL in the query of a URL is encoded twice; each further level is rare
_MAX_ESCAPES: Final = 1_000  # of one response; decoding 64 KiB of them takes 60 ms
_MIN_BASE64: Final = 8  # characters of a token; shorter ones would be found by chance
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# The first event of a request: a host name is looked up in the first two, and logged.
_BEFORE_SENDING: Final = ("connect_tcp.started", "connect_unix_socket.started", "send_request_headers.started")
_REPEATED: Final = "A redirect repeats the token in its URL; it is not followed."
_NOT_COVERED: Final = (
    "The answer to a request with the token in its URL is a redirect, and this transport does not support httpx's "
    "`trace` extension, so the redirect cannot be checked; it is not followed. Request the final URL, or use httpx's "
    "own transport."
)
# Sends `str(request.url)`; every other transport known sends `request.url.raw_path`.
_SENDS_TEXT: Final = "httpx_aiohttp"


def forms_of(token: str) -> tuple[str, ...]:
    """Return the texts of which `repeats` finds one in each text with the token in it."""
    if len(token) < _MIN_BASE64:
        return (_alike(token),)
    # Base64 of any text with the token in it has one of three, which depends on the position.
    encoded: list[str] = []
    for before in range(3):
        data = bytes(before) + token.encode()
        whole = data[: len(data) // 3 * 3]  # the last characters depend on the text that follows
        encoded.append(base64.b64encode(whole).decode()[(0, 2, 3)[before] :])
    return (_alike(token), *encoded)


def repeats(text: str, forms: tuple[str, ...]) -> bool:
    """Return whether a URL, or a part of one, has a token in it: as it is, percent-encoded, or in base64.

    Text that is percent-encoded more than 8 times, or has more than 1000 percent signs, is assumed to have it.

    >>> repeats("https://other.example/?next=https%3A%2F%2Fapi.example%2F%3Ftoken%3Dt-1", forms_of("t-1"))
    True
    """
    if text.count("%") > _MAX_ESCAPES:
        return True
    for _ in range(_MAX_DECODINGS):
        plain = _alike(text)
        if any(form in plain for form in forms):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def _alike(text: str) -> str:
    # One spelling for both base64 alphabets. A form's "+" is a space (application/x-www-form-urlencoded).
    return text.replace("-", "+").replace("_", "/").replace(" ", "+")


class RedirectGuard(Unpicklable):
    """A `trace` extension for a request with the token in its URL: stops a redirect that repeats the token.

    Args:
        request: The request, without the token.
        url: Its URL with the token.
        forms: What `forms_of` returns for the token.
        library: httpx or httpx2, whichever made the request.
        inner: The `trace` extension that the request had before, or None. It is still called.
    """

    __slots__ = ("_forms", "_is_repeated", "_library", "_request", "_targets", "_was_called", "inner")

    def __init__(
        self, request: Any, *, url: Any, forms: tuple[str, ...], library: ModuleType, inner: Trace | None
    ) -> None:
        host, port, path = url.raw_host, url.port, url.raw_path
        netloc = host if port is None else b"%b:%d" % (host, port)
        # As a transport sends it, and as it sends it to a proxy.
        self._targets = ((host, port, path), b"%b://%b%b" % (url.raw_scheme, netloc, path))
        self._request = request
        self._forms = forms
        self._library = library
        self._is_repeated = False
        self._was_called = False
        self.inner = inner

    async def __call__(self, event: str, info: MutableMapping[str, Any]) -> None:
        """Check a request before it is sent, and an answer before the transport logs it.

        Raises:
            RemoteProtocolError: The library's; a redirect repeats the token in its URL.
        """
        self._was_called = True
        if self._is_repeated and event.endswith(_BEFORE_SENDING):
            raise self._error(_REPEATED)
        if event.endswith("send_request_headers.started") and self._is_other_url_with_token(info["request"].url):
            raise self._error(_REPEATED)
        if self.inner is not None:
            await self.inner(event, info)
        if event.endswith("receive_response_headers.complete"):
            # The transport logs this value at DEBUG after the call.
            info["return_value"] = self._checked(info["return_value"])

    def check_transport(self) -> None:
        """Check that redirects are checked. Called by the client when it builds the request of a redirect.

        Raises:
            RemoteProtocolError: The library's; the transport has not called this extension.
        """
        if not self._was_called:
            raise self._error(_NOT_COVERED)

    def _error(self, text: str) -> Exception:
        error: Exception = _error_class(self._library)(text, request=self._request)
        return error

    def _is_other_url_with_token(self, url: Any) -> bool:
        port = None if url.port == {b"https": 443, b"http": 80}.get(url.scheme) else url.port
        own, own_at_proxy = self._targets
        if own_at_proxy == url.target or own == (url.host, port, url.target):
            return False
        return self._has_token(url.target)

    def _has_token(self, text: bytes) -> bool:
        return repeats(text.decode("latin-1"), self._forms)

    def _checked(self, answer: tuple[object, ...]) -> object:
        """Check a response's status, header lines and what else the transport logs of it; return what it may log."""
        status = next((part for part in answer if isinstance(part, int)), None)
        headers = next((cast("list[tuple[bytes, bytes]]", part) for part in answer if isinstance(part, list)), None)
        if headers is None:
            self._is_repeated = True  # an unknown transport: no redirect of its can be checked
            return status
        if status in _REDIRECTS:
            self._check_location(headers)
        escapes = sum(value.count(b"%") for _, value in headers)
        return self._redacted(answer) if escapes <= _MAX_ESCAPES else status

    def _check_location(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Remember whether a redirect repeats the token; the request that it leads to is then not sent."""
        for name, value in headers:
            if name.lower() == b"location" and self._has_token(value):
                self._is_repeated = True
                try:
                    _ = self._request.url.join(value.decode("latin-1")).host
                except (self._library.InvalidURL, ValueError):
                    # The client's error would quote the part that is invalid.
                    raise self._error(_REPEATED) from None

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [self._redacted(part) for part in cast("Sequence[object]", value)]
        return b"[the token]" if isinstance(value, bytes) and self._has_token(value) else value


@functools.cache
def _error_class(library: ModuleType) -> Any:
    class RemoteProtocolError(library.RemoteProtocolError):  # type: ignore[name-defined, misc]
        """Keeps the first request; the client would put the redirect's in its place, which has the token in its URL."""

        @property
        def request(self) -> Any:
            return self._request

        @request.setter
        def request(self, _request: Any) -> None:
            pass

    return RemoteProtocolError


def hide_token(url: Any, *, before: Any, forms: tuple[str, ...], guard: RedirectGuard) -> Any:
    """Return a URL that is sent whole, written without the token, and checks the transport before a redirect.

    The client's log lines and errors use `str`; the wire does not.

    Args:
        url: The URL with the token, of httpx or httpx2.
        before: The URL without it. Of the query, only what is in both is written.
        forms: What `forms_of` returns for the token.
        guard: The guard of its redirects.
    """
    plain: Any = getattr(url, "plain_class", url.__class__)
    given = [part for part in before.query.split(b"&") if part]
    kept = [part for part in url.query.split(b"&") if part in given]
    if kept == given and _without_query(url) == _without_query(before):
        shown = str(before)  # usual, and a URL is slow to build
    else:
        shown = str(plain(url, query=b"&".join(kept) or None))
    if repeats(shown, forms):
        shown = str(plain(url, userinfo=b"", path="/", query=None, fragment=None))
    return _hidden_class(plain)(url, shown=shown, guard=guard)


def _without_query(url: Any) -> tuple[bytes, ...]:
    return (url.raw_scheme, url.userinfo, url.netloc, url.raw_path.partition(b"?")[0])


@functools.cache
def _hidden_class(plain: Any) -> Any:
    # Derived from the client's own class, because a client accepts no other; at most two, one for each library.
    class HiddenTokenURL(plain):  # type: ignore[misc]
        plain_class = plain

        def __init__(self, url: Any, *, shown: str, guard: RedirectGuard) -> None:
            plain.__init__(self, url)
            self._shown = shown
            self._guard = guard

        @property
        def fragment(self) -> str:
            self._guard.check_transport()
            fragment: str = plain.fragment.__get__(self)
            return fragment

        def __str__(self) -> str:
            caller = str(sys._getframe(1).f_globals.get("__name__"))
            return str(plain(self)) if caller.partition(".")[0] == _SENDS_TEXT else self._shown

        def __repr__(self) -> str:
            return f"URL({self._shown!r})"

    return HiddenTokenURL
