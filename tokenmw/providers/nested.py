"""Where a provider gets another provider's token, as `TokenHTTP` needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tokenmw.providers.base import Provider
    from tokenmw.values import Token

__all__ = ["NestedTokens"]


class NestedTokens(Protocol):
    """Gets tokens by credential. A broker has one; a `TokenHTTP` that a test makes has none."""

    async def token(self, provider: Provider, /) -> Token:
        """Return a valid token of a provider, waiting for one if need be."""
        ...

    async def invalidate(self, token: Token, /) -> None:
        """Take note that a token was refused."""
        ...
