"""What an app gets from a broker to send its requests: a `TokenHTTP` that finds the metadata of issuers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.testing import make_token

if TYPE_CHECKING:
    from tokenmw import Provider, Token


class Found:
    """Fetches each other token anew, as a broker does once a day."""

    def __init__(self, client: Any, *, clock: Clock) -> None:
        self._http = TokenHTTP(client, limits=Limits(), clock=clock)

    async def token(self, provider: Provider, /) -> Token:
        """Return a token of a provider."""
        grant = await provider.fetch(self._http)
        return make_token(grant.value, expires_in=grant.expires_in, extra=grant.extra)

    async def invalidate(self, token: Token, /) -> None:
        """Do nothing: no token is kept."""


def http_over(client: Any, *, clock: Clock = SYSTEM_CLOCK) -> TokenHTTP:
    """Return what sends an app's requests through a client."""
    return TokenHTTP(client, limits=Limits(), clock=clock, nested=Found(client, clock=clock))
