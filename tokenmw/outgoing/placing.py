"""Where a token may go, and how it is put on a request so that it goes nowhere else."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from tokenmw.errors import ConfigurationError
from tokenmw.providers.http import ascii_host
from tokenmw.providers.quiet_http import hide_query
from tokenmw.providers.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
    from types import ModuleType

    from tokenmw.providers.base import Provider
    from tokenmw.values import Token

    Trace = Callable[[str, Any], Awaitable[None]]

__all__ = ["Unsigned", "can_be_sent_again", "carries", "goes_to", "library_of", "stays_at_home"]


def library_of(request: object) -> ModuleType:
    """Return the library that a request is from, httpx or httpx2."""
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is not None and isinstance(request, httpx2.Request):
        return httpx2
    return sys.modules["httpx"]


def goes_to(url: Any, *, provider: Provider) -> bool:
    """Return whether a provider's token may be sent to a URL; asked before there is a token.

    Raises:
        ConfigurationError: The host is the provider's, but the request would go there without TLS.
    """
    if not _is_of(provider.hosts, url):
        return False
    if url.scheme != "https" and not provider.allow_http and not is_loopback(_host(url)):
        raise ConfigurationError(
            f"The token of {type(provider).__name__} is not sent to {_host(url)} without TLS: use https://, "
            f"or give the provider allow_http=True if the network between is trusted."
        )
    return True


def stays_at_home(url: Any, *, start: Any, provider: Provider) -> bool:
    """Return whether a redirect leads to where the token may go, too: by its hosts, or to the same host."""
    if provider.hosts is None and _host(url) != _host(start):
        return False
    secure = url.scheme == "https" or provider.allow_http or is_loopback(_host(url))
    return secure and _is_of(provider.hosts, url)


def _is_of(hosts: frozenset[str] | None, url: Any) -> bool:
    if hosts is None or (host := _host(url)) in hosts:
        return True
    # A class of the user's own may have names in its `hosts` that are not as they are on the wire.
    return any(host.endswith(name) if name.startswith(".") else host == ascii_host(name) for name in hosts)


def _host(url: Any) -> str:
    # As it is on the wire: the client decodes some names of other alphabets, and raises for those that are none.
    host: bytes = url.raw_host
    return host.decode("ascii").lower()


def carries(request: Any, token: Token) -> bool:
    """Return whether a request, perhaps one that the client made for a redirect, has the token on it."""
    value = token.value.encode()
    return _is_in(request.url.query, token) or any(value in line for _, line in request.headers.raw)


def _is_in(query: bytes, token: Token) -> bool:
    # Both may be escaped, and not in the same way.
    return token.value in unquote(query.decode("ascii", "replace"))


def can_be_sent_again(request: Any) -> bool:
    """Return whether a request's body is held as bytes: an iterator or a file is used up by the first attempt."""
    return isinstance(request.stream, library_of(request).ByteStream)


class Unsigned:
    """A request as its sender made it, to which one token after the other can be put."""

    __slots__ = ("_extensions", "_headers", "_url", "request")

    def __init__(self, request: Any) -> None:
        self.request = request
        self._headers = request.headers
        self._url = request.url
        self._extensions = dict(request.extensions)
        trace = self._extensions.get("trace")
        if isinstance(trace, _Guard):
            # Of the request that was redirected to here.
            self._extensions["trace"] = trace.behind

    def with_token(self, token: Token, *, provider: Provider) -> Any:
        """Return the request with a token where the provider wants it.

        The client takes `Authorization` off when a redirect leads elsewhere (RFC 9110 §15.4). A header of any other
        name it would copy, so such a header is there to be sent, and not to be copied. A URL with a token in it is
        sent whole, and written without its query: clients log it.
        """
        request, library = self.request, library_of(self.request)
        request.headers = library.Headers(self._headers)
        request.url = self._url
        request.extensions = self._extensions
        provider.authorize(request, token)
        before = self._headers.raw
        added = [line for line in request.headers.raw if line not in before and line[0].lower() != b"authorization"]
        if added:
            request.headers = _uncopied_class(library)(
                [line for line in request.headers.raw if line not in added], added=added
            )
        if request.url is not self._url:
            request.url = hide_query(request.url)
            guard = _Guard(request.url, token=token, library=library, behind=self._extensions.get("trace"))
            request.extensions = {**self._extensions, "trace": guard}
        return request


class _AllLines:
    """Shows what is sent, wherever header lines are read."""

    @property
    def _all(self) -> Any:
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        return self._all[key]

    def __contains__(self, key: object) -> bool:
        return key in self._all

    def __iter__(self) -> Any:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def keys(self) -> Any:
        return self._all.keys()

    def values(self) -> Any:
        return self._all.values()

    def items(self) -> Any:
        return self._all.items()

    def multi_items(self) -> Any:
        return self._all.multi_items()

    def get_list(self, key: str, split_commas: bool = False) -> Any:  # noqa: FBT001, FBT002  as the library has it
        return self._all.get_list(key, split_commas)


@functools.cache
def _uncopied_class(library: ModuleType) -> Any:
    class UncopiedHeaders(_AllLines, library.Headers):  # type: ignore[name-defined, misc]
        """Header lines of which some are sent, but are not in a copy."""

        def __init__(self, lines: Iterable[tuple[bytes, bytes]], *, added: list[tuple[bytes, bytes]]) -> None:
            library.Headers.__init__(self, lines)
            self._added = added

        @property
        def raw(self) -> list[tuple[bytes, bytes]]:
            return [*super().raw, *self._added]

        @property
        def _all(self) -> Any:
            return library.Headers(self.raw)

        def __repr__(self) -> str:
            return repr(library.Headers(self))

    return UncopiedHeaders


class _Guard:
    """Refuses, on the wire, what repeats the token of a request that had it in its URL.

    A server may put the query of a request into its redirect. Where that leads is not known to the auth object, but the
    client hands this extension on to the request that it makes of it, and calls it before anything is sent.
    """

    __slots__ = ("_library", "_own", "_token", "behind")

    def __init__(self, url: Any, *, token: Token, library: ModuleType, behind: Trace | None) -> None:
        self._own = (url.raw_host, url.raw_path)
        self._token = token
        self._library = library
        self.behind = behind

    async def __call__(self, event: str, info: MutableMapping[str, Any]) -> None:
        """Look at a request whose head is about to be sent, or at an answer whose head is about to be logged."""
        if event.endswith("send_request_headers.started") and self._repeats(info["request"].url):
            raise self._library.RemoteProtocolError("A redirect repeats the token in its URL; it is not followed.")
        if self.behind is not None:
            await self.behind(event, info)
        if event.endswith("receive_response_headers.complete"):
            # The client's transport writes what is left of this into its log, at DEBUG.
            info["return_value"] = self._hidden(info["return_value"])

    def _repeats(self, url: Any) -> bool:
        return _is_in(url.target, self._token) and (url.host, url.target) != self._own

    def _hidden(self, said: Any) -> Any:
        if isinstance(said, (tuple, list)):
            return [self._hidden(part) for part in cast("Sequence[object]", said)]
        return b"[the token]" if isinstance(said, bytes) and _is_in(said, self._token) else said
