"""The small pages that a user sees if the program has none of its own: no scripts, no assets of other files."""

from __future__ import annotations

import json
from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["HEADERS", "page", "problem", "wants_page"]

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every response: the URL of a callback has a code, which no page may pass on."""
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
_STYLE: Final = "body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}"


def wants_page(request: Request) -> bool:
    """Return whether a request is a browser's navigation, and not a call of a script."""
    return "text/html" in request.headers.get("accept", "")


def page(title: str, text: str, *, back: str, status: int = 200) -> Response:
    """Return a page with one sentence, and a link to the path `back` if it is not ""."""
    link = f'<p><a href="{escape(back)}">Back</a></p>' if back else ""
    content = (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1><p>{escape(text)}</p>{link}</html>"
    )
    return Response(content, status, headers=_PAGE_HEADERS, media_type="text/html")


def problem(status: int, detail: str, **more: Any) -> Response:
    """Return an error as `application/problem+json` (RFC 9457)."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return Response(json.dumps(document), status, headers=headers, media_type="application/problem+json")
