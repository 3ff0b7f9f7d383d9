"""A token without a provider, for tests of code that takes one."""

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
    """Make a token as a handler would get it.

    >>> make_token("t-1", provider="crm").authorization
    'Bearer t-1'

    Args:
        value: The token itself.
        provider: The name under which it was asked for.
        expires_in: Seconds until it expires; negative for one that has.
        token_type: The type that the provider's answer named.
        extra: More of the provider's answer, such as `{"instance_url": "https://…"}`.
        scheme: The word in front of it in the `Authorization` header; None if the token goes elsewhere.
        clock: The clock from which the life counts; a :class:`ManualClock` in most tests.
    """
    return Token(
        value,
        provider=provider,
        expires_at=clock.time() + expires_in,
        token_type=token_type,
        extra=extra,
        scheme=scheme,
    )
