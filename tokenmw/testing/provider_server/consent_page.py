"""The pages of the test server for real browsers: a login with consent, a user code, and an error."""

from __future__ import annotations

from html import escape

from starlette.responses import Response

__all__ = ["error_page", "form_page", "message_page"]

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def form_page(*, client: str, scope: str, user: str = "", user_code: str | None = None) -> Response:
    """Return a page with a form that posts `user`, `decision` (`allow` or `deny`) and perhaps `user_code` to its URL.

    Args:
        client: The client that asks; "" if that is not known yet.
        scope: What it asks for.
        user: The value of the field for the user.
        user_code: The value of a field for a user code; None for no such field.
    """
    asked = f"<p><b>{escape(client)}</b> asks for: <i>{escape(scope or 'nothing')}</i></p>" if client else ""
    code = "" if user_code is None else _field("user_code", "Code", user_code)
    buttons = "".join(
        f'<button name="decision" value="{value}">{text}</button> '
        for value, text in (("allow", "Allow"), ("deny", "Deny"))
    )
    return _page("Sign in", f'{asked}<form method="post">{code}{_field("user", "User", user)}<p>{buttons}</p></form>')


def error_page(text: str) -> Response:
    """Return a page for a request that cannot be answered by a redirect (RFC 6749 §4.1.2.1), with HTTP 400."""
    return _page("Invalid request", f"<p>{escape(text)}</p>", status=400)


def message_page(text: str) -> Response:
    """Return a page for the end of a flow without a redirect."""
    return _page("Done", f"<p>{escape(text)}</p>")


def _field(name: str, label: str, value: str) -> str:
    return f'<p><label>{label} <input name="{name}" value="{escape(value)}" required></label></p>'


def _page(title: str, body: str, *, status: int = 200) -> Response:
    content = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>{body}</html>'
    )
    return Response(content, status, headers=_HEADERS, media_type="text/html")
