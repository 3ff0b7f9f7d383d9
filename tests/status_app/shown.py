"""A broker in a bad hour, for pictures and measurements of the page: `serve` runs it under uvicorn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from tests.asgi_client import scope_of
from tokenmw import CredentialRejected, Grant, RequestTokens, TokenBroker, TokenmwError, TokenUnavailable
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SECRET", "broker_of", "fill"]

SECRET = "c4n4ry-a-secret-of-some-length"


def raising(error: TokenmwError) -> Callable[[], Any]:
    """Return a function that raises."""

    async def fetch() -> Grant:
        raise error

    return fetch


def lasting(seconds: float) -> Callable[[], Any]:
    """Return a function that grants a token."""

    async def fetch() -> Grant:
        return Grant(f"{SECRET}-{seconds}", expires_in=seconds)

    return fetch


def tenant(connection: HTTPConnection) -> StaticToken:
    """Return the provider of a tenant, of which most are rejected."""
    name = connection.headers["x-tenant"]
    fetch = lasting(3600) if name.endswith("0") else raising(CredentialRejected(f"{name}: invalid_client"))
    return StaticToken(fetch, credential_id=name)


def broker_of(**options: Any) -> TokenBroker:
    """Make a broker with providers in each state."""
    providers: dict[str, Any] = {
        "crm": StaticToken(lasting(3600)),
        "billing": StaticToken(raising(TokenUnavailable("login.billing.example:443 does not answer within 10 s"))),
        "search": StaticToken(lasting(60)),
        "mail": StaticToken(raising(CredentialRejected("login.mail.example:443: invalid_client: check client_secret"))),
        "reports": StaticToken(lasting(7200)),
        "tenants": tenant,
    }
    return TokenBroker(providers, secret_key=SECRET, **options)


async def fill(broker: TokenBroker, *, tenants: int, sessions: int) -> None:
    """Use all providers, some tenants and some API keys."""
    names = ("crm", "billing", "search", "mail")
    await asyncio.gather(*(broker.token(name) for name in names), return_exceptions=True)
    for number in range(tenants):
        scope = scope_of("http", headers=[(b"x-tenant", f"{SECRET}{number}".encode())])
        await asyncio.gather(RequestTokens(broker, scope).resolve("tenants"), return_exceptions=True)
    for first in range(0, sessions, 100):
        keys = (f"{SECRET}-{number}" for number in range(first, min(first + 100, sessions)))
        await asyncio.gather(*map(broker.session_id, keys))
