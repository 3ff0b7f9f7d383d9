"""Redirects: the client makes the next request by itself, and this keeps a token in a header out of it.

A client removes `Authorization` when a redirect leads to another host (RFC 9110 §15.4), but copies every other header.
Tokens in a URL are the subject of `url_tokens`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from tokenmw.values import Token

__all__ = ["contains_token", "uncopied_headers"]


def contains_token(request: Any, token: Token) -> bool:
    """Return whether a request, perhaps one that the client made for a redirect, carries the token."""
    value = token.value.encode()
    query: str = request.url.query.decode("ascii")
    return token.value in unquote(query) or any(value in line for _, line in request.headers.raw)


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
