"""What a broker says of itself: frozen facts without secrets."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  pydantic reads the annotations, where a route returns a status
from dataclasses import dataclass
from typing import Literal

__all__ = ["ProviderStatus", "Status"]


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One named provider.

    Attributes:
        state: `fresh`, `aging` (a new token is due), `failing` (there is none, and the last attempt failed),
            `cold` (nobody has asked), or `per request` (credentials are chosen by the request).
        expires_in: Seconds that its token has left; None if there is none.
        failure: What went wrong last, without secrets; "" after a success.
        retry_in: Seconds until the next attempt after a failure.
    """

    state: Literal["fresh", "aging", "failing", "cold", "per request"]
    expires_in: float | None = None
    failure: str = ""
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A broker at one moment.

    Attributes:
        shared: `up`, `down`, or `off` (no Redis is configured, or the broker is not open).
        shared_since: When that state began, in seconds since 1970; None if off.
        shared_error: What went wrong with Redis last, a short word such as `timeout`; "" if nothing.
        providers: The named providers.
        tokens: Token keys held in this process.
        sessions: Session ids held in this process.
        unshared_tokens: Tokens that wait to be told to Redis.
        unshared_invalidations: Invalidations of tokens that wait to be told to Redis.
        unshared_sessions: Session ids that wait to be told to Redis.
        touches: Session touches that wait to be sent.
        unreadable: Values in Redis that could not be used, since start.
        sealed: Whether values are sealed before they go to Redis.
    """

    shared: Literal["up", "down", "off"]
    shared_since: float | None
    shared_error: str
    providers: Mapping[str, ProviderStatus]
    tokens: int
    sessions: int
    unshared_tokens: int
    unshared_invalidations: int
    unshared_sessions: int
    touches: int
    unreadable: int
    sealed: bool

    @property
    def unshared(self) -> int:
        """All that waits to be told to Redis."""
        return self.unshared_tokens + self.unshared_invalidations + self.unshared_sessions
