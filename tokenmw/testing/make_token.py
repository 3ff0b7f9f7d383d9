"""A token without a provider, for tests of code that takes a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.values import Token

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["make_token"]


def make_token(
    value: str = "test-token",
    *,
    provider: str = "test",
    expires_in: float = 3600.0,
    token_type: str = "Bearer",
    extra: Mapping[str, Any] | None = None,
    scheme: str | None = "Bearer",
    clock: Clock = SYSTEM_CLOCK,
) -> Token:
    """Return a token as a handler gets it.

    >>> make_token("t-1", provider="crm").authorization
    'Bearer t-1'

    Args:
        value: The token itself.
        provider: The name of its provider.
        expires_in: Seconds until it expires; negative for an expired token.
        token_type: The type from the provider's answer.
        extra: Other fields of the provider's answer, such as `{"instance_url": "https://…"}`.
        scheme: The scheme of the `Authorization` header; None if the token is not sent in that header.
        clock: The clock that `expires_in` is added to; a :class:`ManualClock` in most tests.
    """
    return Token(
        value,
        provider=provider,
        expires_at=clock.time() + expires_in,
        token_type=token_type,
        extra=extra,
        scheme=scheme,
    )
