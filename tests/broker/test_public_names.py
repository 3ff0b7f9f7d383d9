"""Typing `broker.`, `tokens.` or `token.` offers what a program may use, and nothing else."""

from __future__ import annotations

import pytest

from tokenmw import RequestTokens, Token, TokenAuth, TokenBroker, TokenMiddleware
from tokenmw.status_app import StatusApp

NAMES: dict[type, set[str]] = {
    TokenBroker: {
        "auth",
        "connections",
        "fleet",
        "hand_in",
        "invalidate",
        "invalidate_provider",
        "lifespan",
        "lifespan_with",
        "override",
        "reset_session",
        "session_id",
        "status",
        "token",
    },
    RequestTokens: {"auth", "resolve"},
    Token: {"authorization", "expires_at", "extra", "provider", "token_type", "value"},
    TokenMiddleware: set(),
    StatusApp: set(),
    # What httpx itself calls.
    TokenAuth: {"async_auth_flow", "auth_flow", "requires_request_body", "requires_response_body", "sync_auth_flow"},
}


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_a_class_has_these_public_attributes(kind: type) -> None:
    """Everything else begins with an underscore."""
    assert NAMES[kind] == {name for name in dir(kind) if not name.startswith("_")}
