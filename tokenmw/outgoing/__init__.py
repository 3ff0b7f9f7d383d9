"""Tokens on outgoing requests: the auth object for httpx and httpx2 clients.

`auth` is the flow of one request. It uses `request` (puts a token on a request, knows where a token may go),
`redirects` (keeps a token from following a redirect) and `response` (reads whether the API says that the token is
invalid). This package may import `providers`, `tokens` and what is below them, and it is one of the two places that
know httpx.
"""

from __future__ import annotations

from tokenmw.outgoing.auth import TokenAuth, token_auth

__all__ = ["TokenAuth", "token_auth"]
