"""Keeps secrets out of the logs of httpx and httpx2: URLs without their query, responses without their text.

Both libraries log each URL at INFO and each response's header lines at DEBUG. Some providers take the secret or the
token in the query, and some servers repeat in a response what they were sent.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from tokenmw.redaction import without_locals

__all__ = ["hide_http2_headers", "hide_query", "hide_response", "with_query_token"]


def hide_query(url: Any) -> Any:
    """Return an httpx or httpx2 URL that is sent whole and written without its query.

    The client's log lines and errors use `str`; the wire does not.
    """
    plain: Any = getattr(url, "plain_class", url.__class__)
    return _quiet_url_class(plain)(url)


@without_locals
def with_query_token(url: Any, name: str, value: str) -> Any:
    """Return a URL with the token as a query parameter; it replaces an older one, and logs do not show the query.

    The rest of the query stays byte for byte as it is, because some APIs sign it.

    Args:
        url: The URL of an httpx or httpx2 request.
        name: The parameter.
        value: The token: visible ASCII. Characters that a query cannot hold are escaped.
    """
    field = f"{name}=".encode()
    kept = [part for part in url.query.split(b"&") if part and not part.startswith(field)]
    escaped = "".join(one if one.isalnum() or one in "-._~" else f"%{ord(one):02X}" for one in value)
    return hide_query(url.copy_with(query=b"&".join([*kept, field + escaped.encode()])))


@functools.cache
def _quiet_url_class(plain: Any) -> Any:
    # Derived from the client's own class, because a client accepts no other; at most two, one for each library.
    class QuietURL(plain):  # type: ignore[misc]
        plain_class = plain

        def __str__(self) -> str:
            return str(plain(self, query=None))

        def __repr__(self) -> str:
            return f"URL({str(self)!r})"

    return QuietURL


async def hide_response(event: str, info: dict[str, Any]) -> None:
    """Reduce httpcore's DEBUG lines about a response to its status; given to a request as its `trace` extension.

    httpcore passes the facts of a log line to this function first and then logs what is left of them
    (https://www.encode.io/httpcore/extensions/). The response itself does not change.
    """
    if event.endswith(".complete") and isinstance(info.get("return_value"), tuple):
        info["return_value"] = next((part for part in info["return_value"] if isinstance(part, int)), None)
    elif event.endswith(".failed"):
        # The text of a protocol error quotes the malformed line.
        info["exception"] = type(info.get("exception")).__name__


def hide_http2_headers() -> None:
    """Drop what hpack, the header compression of HTTP/2, logs at DEBUG: each header with its value.

    A client with `http2=True` would log the credential of a token request, and each token. Unlike httpcore, hpack has
    no other way to change its lines.
    """
    for name in ("hpack.hpack", "hpack.table"):
        logging.getLogger(name).addFilter(_without_debug)  # a filter that is there already is not added again


def _without_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
