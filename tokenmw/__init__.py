"""Provider access tokens and stable session ids for ASGI services, shared by all workers through Redis."""

from __future__ import annotations

from tokenmw.asgi.dependencies import provider_token, request_tokens, session_id
from tokenmw.asgi.middleware import TokenMiddleware
from tokenmw.asgi.request import RequestState, RequestTokens
from tokenmw.broker import TokenBroker
from tokenmw.callers.api_key import APIKeySource
from tokenmw.errors import (
    APIKeyRefused,
    ConfigurationError,
    CredentialRejected,
    SessionUnavailable,
    TokenmwError,
    TokenUnavailable,
)
from tokenmw.limits import Limits
from tokenmw.observe.events import Observer
from tokenmw.observe.version import __version__ as __version__
from tokenmw.outgoing import TokenAuth
from tokenmw.providers.base import Provider
from tokenmw.status import Status
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
    "RequestState",
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
