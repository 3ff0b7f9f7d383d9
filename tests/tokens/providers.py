"""Providers whose endpoint is scripted by a test, and counts its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.providers.base import Provider
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.providers.http import TokenHTTP

__all__ = ["DependentProvider", "Endpoint", "ScriptedProvider"]


class Endpoint:
    """A provider's token endpoint: its next answers, and how often it was asked.

    Attributes:
        calls: The monotonic times at which it was asked.
        issued: The values of all tokens that it granted, in order.
        answer: Makes the answer to each request from now on.
    """

    def __init__(self, clock: Clock, *, lifetime: float = 7200.0) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.calls: list[float] = []
        self.issued: list[str] = []
        self.answer: Callable[[], Awaitable[Grant]] = self.new

    async def new(self) -> Grant:
        """Grant a new token."""
        self.issued.append(f"token-{len(self.issued) + 1}")
        return Grant(self.issued[-1], expires_in=self.lifetime)

    def fails(self, error: Exception) -> None:
        """Fail from now on."""

        async def fail() -> Grant:
            raise error

        self.answer = fail

    def takes(self, seconds: float) -> None:
        """Take this time for each answer from now on, by the clock."""

        async def slow() -> Grant:
            await self.clock.sleep(seconds)
            return await self.new()

        self.answer = slow


class ScriptedProvider(Provider):
    """A credential for an endpoint; `secret` tells the credentials for one endpoint apart."""

    __slots__ = ("endpoint", "exclusive", "refresh_before", "renewal_window", "secret", "shareable")

    kind = "scripted"

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        secret: str = "s",  # a name, not a secret
        renewal_window: float | None = None,
        refresh_before: float | None = None,
        exclusive: bool = False,
        shareable: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self.secret = secret
        self.renewal_window = renewal_window
        self.refresh_before = refresh_before
        self.exclusive = exclusive
        self.shareable = shareable

    def identity(self) -> tuple[object, ...]:
        return (id(self.endpoint), self.secret)

    async def fetch(self, http: TokenHTTP) -> Grant:
        self.endpoint.calls.append(self.endpoint.clock.monotonic())
        return await self.endpoint.answer()


class DependentProvider(ScriptedProvider):
    """A credential whose request needs another credential's token."""

    __slots__ = ("other",)
    kind = "dependent"

    def __init__(self, endpoint: Endpoint, other: Provider, *, secret: str = "s") -> None:  # a name, not a secret
        super().__init__(endpoint, secret=secret)
        self.other = other

    def identity(self) -> tuple[object, ...]:
        return (*super().identity(), self.other.credential)

    async def fetch(self, http: TokenHTTP) -> Grant:
        await http.token(self.other)
        return await super().fetch(http)
