"""URLs whose query is a secret: sent whole, and written without it."""

from __future__ import annotations

import functools
from typing import Any

from tokenmw.redaction import without_locals

__all__ = ["unlogged", "with_query_token"]


def unlogged(url: Any) -> Any:
    """Return an httpx or httpx2 URL that is sent whole and written without its query.

    The client logs each request's URL, and its errors quote it. Both go through `str`, the wire does not.
    """
    plain: Any = getattr(url, "plain_class", url.__class__)
    return _unlogged_class(plain)(url)


@without_locals
def with_query_token(url: Any, name: str, value: str) -> Any:
    """Return a URL with a token as a query parameter, in place of an older one, to be written without its query.

    The rest of the query stays as it is, letter by letter: some APIs sign it.

    Args:
        url: The URL of an httpx or httpx2 request.
        name: The parameter.
        value: The token: visible ASCII. What a query cannot hold is escaped.
    """
    field = f"{name}=".encode()
    kept = [part for part in url.query.split(b"&") if part and not part.startswith(field)]
    escaped = "".join(one if one.isalnum() or one in "-._~" else f"%{ord(one):02X}" for one in value)
    return unlogged(url.copy_with(query=b"&".join([*kept, field + escaped.encode()])))


@functools.cache
def _unlogged_class(plain: Any) -> Any:
    # Made of the client's own class, because a client takes no other one; two at most, one for each library.
    class UnloggedURL(plain):  # type: ignore[misc]
        plain_class = plain

        def __str__(self) -> str:
            return str(plain(self, query=None))

        def __repr__(self) -> str:
            return f"URL({str(self)!r})"

    return UnloggedURL
