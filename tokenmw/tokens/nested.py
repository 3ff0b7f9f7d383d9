"""Tokens of other providers, for a provider whose own request needs one: a tenant's needs the app's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.errors import RequestError
from tokenmw.tokens.failures import Source

if TYPE_CHECKING:
    from tokenmw.providers.base import Provider
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.sync import TokenSync
    from tokenmw.values import Token

__all__ = ["NestedTokens"]


class NestedTokens:
    """Gets the tokens that `TokenHTTP.token` is asked for, as any request would.

    Each has a entry, a flight and a lease of its own, so one app token serves all tenants. That flight is bounded by
    the one that waits for it, and is not counted against `Limits.flights`. A fetch waits here for most of its own
    `fetch_seconds`; the flight that it waits for goes on if that is not enough.
    """

    __slots__ = ("_coherence", "_entries", "_manager")

    def __init__(self, manager: TokenManager, *, entries: TokenCache, coherence: TokenSync) -> None:
        self._manager = manager
        self._entries = entries
        self._coherence = coherence

    async def token(self, provider: Provider) -> Token:
        """Return a valid token of another provider.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: That provider refuses its credential.
        """
        entry = self._entries.entry(provider, provider.kind)
        try:
            return await self._manager.get_for_fetch(entry)
        except RequestError as error:
            # So that whoever passes it on does not count it as his own.
            error._source = source = Source(entry)
            # Whoever waits for it uses it: evicted, it could not tell them that there is a token.
            self._entries.entry(source.entry.provider, source.entry.name)
            raise

    async def invalidate(self, token: Token) -> None:
        """Drop another provider's token that was refused, if it is still the current one."""
        await self._coherence.invalidate(token)
