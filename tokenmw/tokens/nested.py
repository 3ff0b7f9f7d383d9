"""Tokens that a provider's own request needs: a tenant's token request carries the app's token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.errors import RequestError
from tokenmw.redaction import Unpicklable
from tokenmw.tokens.clients import ClientEntry
from tokenmw.tokens.failures import Cause

if TYPE_CHECKING:
    from tokenmw.providers.base import Provider
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.sync import TokenSync
    from tokenmw.values import Token

__all__ = ["NestedTokens"]


class NestedTokens(Unpicklable):
    """Returns the tokens that `TokenHTTP.token` asks for, as for any request.

    Each has an entry, a refresh and a lease of its own, so one app token serves all tenants. Its refresh is not counted
    against `Limits(flights=…)`: the tenants that fill that bound would prevent the refresh they all wait for. A fetch
    waits for most of its own `fetch_seconds`; the nested refresh continues if that is not enough.
    """

    __slots__ = ("_cache", "_manager", "_sync")

    def __init__(self, manager: TokenManager, *, cache: TokenCache, sync: TokenSync) -> None:
        self._manager = manager
        self._cache = cache
        self._sync = sync

    async def token(self, provider: Provider) -> Token:
        """Return a valid token of another provider.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: That provider rejects its credential.
        """
        entry = self._cache.entry(provider, provider.kind)
        try:
            return await self._manager.get_for_fetch(entry)
        except RequestError as error:
            # The entry that needs it must not count this as a failure of its own provider.
            error._cause = cause = Cause(entry)
            # Every entry that needs it uses it: if it were evicted, its next token would not end their backoff.
            if not isinstance(cause.entry, ClientEntry):  # else the entries of its callers keep it
                self._cache.entry(cause.entry.provider, cause.entry.name)
            raise

    async def invalidate(self, token: Token) -> None:
        """Drop another provider's token that was rejected, if it is still the current one."""
        await self._sync.invalidate(token)
