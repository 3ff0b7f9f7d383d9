"""Provider access tokens and stable session ids for ASGI services, shared by all workers through Redis."""

from __future__ import annotations

from tokenmw.api_key import APIKeySource
from tokenmw.broker import TokenBroker
from tokenmw.dependencies import provider_token, request_tokens, session_id
from tokenmw.errors import (
    APIKeyRefused,
    ConfigurationError,
    CredentialRejected,
    SessionUnavailable,
    TokenmwError,
    TokenUnavailable,
)
from tokenmw.limits import Limits
from tokenmw.middleware import TokenMiddleware
from tokenmw.observe.events import Observer
from tokenmw.outgoing import TokenAuth
from tokenmw.providers.base import Provider
from tokenmw.request import RequestTokens
from tokenmw.snapshot import Status
from tokenmw.values import Grant, Token

__all__ = [
    "APIKeyRefused",
    "APIKeySource",
    "ConfigurationError",
    "CredentialRejected",
    "Grant",
    "Limits",
    "Observer",
    "Provider",
    "RequestTokens",
    "SessionUnavailable",
    "Status",
    "Token",
    "TokenAuth",
    "TokenBroker",
    "TokenMiddleware",
    "TokenUnavailable",
    "TokenmwError",
    "provider_token",
    "request_tokens",
    "session_id",
]

__version__ = "0.1.0"
