"""Where a token may go, and how it is put on a request."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tokenmw.errors import ConfigurationError
from tokenmw.outgoing.redirects import RedirectGuard, uncopied_headers
from tokenmw.providers.http import ascii_host
from tokenmw.providers.quiet_http import hide_query
from tokenmw.providers.urls import is_loopback
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from types import ModuleType

    from tokenmw.providers.base import Provider
    from tokenmw.values import Token

__all__ = [
    "OriginalRequest",
    "is_replayable",
    "library_of",
    "may_receive_token",
    "may_receive_token_after_redirect",
]


def library_of(request: object) -> ModuleType:
    """Return the library that made a request: httpx or httpx2."""
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is not None and isinstance(request, httpx2.Request):
        return httpx2
    return sys.modules["httpx"]


def may_receive_token(url: Any, *, provider: Provider) -> bool:
    """Return whether a provider's token may be sent to a URL. Called before a token is fetched.

    Raises:
        ConfigurationError: The host is the provider's, but the request would go there without TLS.
    """
    if not _is_one_of(provider.hosts, url):
        return False
    if url.scheme != "https" and not _allows_plain_http(provider, url):
        raise ConfigurationError(
            f"The token of {type(provider).__name__} is not sent to {_host(url)} without TLS: use https://, "
            f"or give the provider allow_http=True if the network between is trusted."
        )
    return True


def may_receive_token_after_redirect(url: Any, *, start: Any, provider: Provider) -> bool:
    """Return whether a redirect from `start` leads to a URL that may receive the token: a host of the provider's.

    A provider without `hosts` allows any host as the first one; a redirect must then stay on it.
    """
    if provider.hosts is None and _host(url) != _host(start):
        return False
    return (url.scheme == "https" or _allows_plain_http(provider, url)) and _is_one_of(provider.hosts, url)


def is_replayable(request: Any) -> bool:
    """Return whether a request's body can be sent again: it is bytes, not an iterator or file that was used up."""
    return isinstance(request.stream, library_of(request).ByteStream)


def _allows_plain_http(provider: Provider, url: Any) -> bool:
    return provider.allow_http or is_loopback(_host(url))


def _is_one_of(hosts: frozenset[str] | None, url: Any) -> bool:
    if hosts is None or (host := _host(url)) in hosts:
        return True
    # A provider class of the user's own may name hosts that are not in their ASCII form.
    return any(host.endswith(name) if name.startswith(".") else host == ascii_host(name) for name in hosts)


def _host(url: Any) -> str:
    # Not `url.host`: it decodes internationalised names, and raises for some that cannot be decoded.
    host: bytes = url.raw_host
    return host.decode("ascii").lower()


class OriginalRequest(Unpicklable):
    """A request as the caller or a redirect made it; `with_token` may be called for one token after another."""

    __slots__ = ("_extensions", "_headers", "_url", "request")

    def __init__(self, request: Any) -> None:
        self.request = request
        self._headers = request.headers
        self._url = request.url
        self._extensions = dict(request.extensions)
        trace = self._extensions.get("trace")
        if isinstance(trace, RedirectGuard):
            # The client copied it from the request that was redirected.
            self._extensions["trace"] = trace.inner

    def with_token(self, token: Token, *, provider: Provider) -> Any:
        """Return the request with a token where the provider wants it, in place of an earlier token.

        Headers other than `Authorization` are left out when the client copies them for a redirect. A URL with a token
        in it is logged by the client without its query, and no redirect may repeat the token.
        """
        request, library = self.request, library_of(self.request)
        request.headers = library.Headers(self._headers)
        request.url = self._url
        request.extensions = self._extensions
        provider.authorize(request, token)
        before = self._headers.raw
        added = [line for line in request.headers.raw if line not in before and line[0].lower() != b"authorization"]
        if added:
            kept = [line for line in request.headers.raw if line not in added]
            request.headers = uncopied_headers(kept, added=added, like=library)
        if request.url is not self._url:
            request.url = hide_query(request.url)
            guard = RedirectGuard(request.url, token=token, library=library, inner=self._extensions.get("trace"))
            request.extensions = {**self._extensions, "trace": guard}
        return request
