"""Redirects: the client makes the next request by itself, and this keeps the token out of it.

A client removes `Authorization` when a redirect leads to another host (RFC 9110 §15.4), but copies every other header,
and a server may repeat the query of a request, with the token, in its `Location`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
    from types import ModuleType

    from tokenmw.values import Token

    Trace = Callable[[str, Any], Awaitable[None]]

__all__ = ["RedirectGuard", "contains_token", "uncopied_headers"]


def contains_token(request: Any, token: Token) -> bool:
    """Return whether a request, perhaps one that the client made for a redirect, carries the token."""
    value = token.value.encode()
    return _is_in(request.url.query, token) or any(value in line for _, line in request.headers.raw)


def _is_in(text: bytes, token: Token) -> bool:
    # Token and text may both be percent-encoded, and differently.
    return token.value in unquote(text.decode("ascii", "replace"))


class RedirectGuard(Unpicklable):
    """An httpx `trace` extension for a request with the token in its URL: stops a redirect that repeats the token.

    The auth object never sees the request that a client makes for a redirect. But that request gets the extensions of
    the first one, and the transport calls this extension before it sends anything.

    Args:
        url: The URL of the request that may have the token in it.
        token: The token in it.
        library: httpx or httpx2, whichever made the request.
        inner: The `trace` extension that the request had before, or None. It is still called.
    """

    __slots__ = ("_library", "_target", "_token", "inner")

    def __init__(self, url: Any, *, token: Token, library: ModuleType, inner: Trace | None) -> None:
        self._target = (url.raw_host, url.raw_path)
        self._token = token
        self._library = library
        self.inner = inner

    async def __call__(self, event: str, info: MutableMapping[str, Any]) -> None:
        """Check a request before it is sent, and an answer before the transport logs it.

        Raises:
            RemoteProtocolError: The library's; a redirect repeats the token in its URL.
        """
        if event.endswith("send_request_headers.started") and self._repeats_token(info["request"].url):
            raise self._library.RemoteProtocolError("A redirect repeats the token in its URL; it is not followed.")
        if self.inner is not None:
            await self.inner(event, info)
        if event.endswith("receive_response_headers.complete"):
            # The transport logs this value at DEBUG after the call.
            info["return_value"] = self._redacted(info["return_value"])

    def _repeats_token(self, url: Any) -> bool:
        return _is_in(url.target, self._token) and (url.host, url.target) != self._target

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [self._redacted(part) for part in cast("Sequence[object]", value)]
        return b"[the token]" if isinstance(value, bytes) and _is_in(value, self._token) else value


def uncopied_headers(
    lines: Iterable[tuple[bytes, bytes]], *, added: list[tuple[bytes, bytes]], like: ModuleType
) -> Any:
    """Return headers of httpx or httpx2 that send the lines in `added` too, but leave them out of every copy.

    A client copies the headers of a request into the one that it makes for a redirect.
    """
    return _uncopied_class(like)(lines, added=added)


class _AllLines:
    """Reads headers from the lines that are sent, not from the base class's own list."""

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

    def get_list(self, key: str, split_commas: bool = False) -> Any:  # noqa: FBT001, FBT002  the library's signature
        return self._all.get_list(key, split_commas)


@functools.cache
def _uncopied_class(library: ModuleType) -> Any:
    class UncopiedHeaders(_AllLines, library.Headers):  # type: ignore[name-defined, misc]
        """Headers whose copies lack the added lines: `copy()` reads the base class's list."""

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
