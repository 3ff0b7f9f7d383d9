"""A provider that does what a test tells it, and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.providers.base import Provider
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.clock import Clock
    from tokenmw.providers.http import TokenHTTP

__all__ = ["Needy", "Scripted", "Stage"]


class Stage:
    """The world behind a provider: its answers, and how often it was asked.

    Attributes:
        calls: The monotonic times at which it was asked.
        issued: All values it gave out, in order.
        answer: What it does next, and from then on.
    """

    def __init__(self, clock: Clock, *, life: float = 7200.0) -> None:
        self.clock = clock
        self.life = life
        self.calls: list[float] = []
        self.issued: list[str] = []
        self.answer: Callable[[], Awaitable[Grant]] = self.new

    async def new(self) -> Grant:
        """Give a new token."""
        self.issued.append(f"token-{len(self.issued) + 1}")
        return Grant(self.issued[-1], expires_in=self.life)

    def fails(self, error: Exception) -> None:
        """Fail from now on."""

        async def fail() -> Grant:
            raise error

        self.answer = fail

    def takes(self, seconds: float) -> None:
        """Take so many seconds from now on, by the clock."""

        async def slow() -> Grant:
            await self.clock.sleep(seconds)
            return await self.new()

        self.answer = slow


class Scripted(Provider):
    """A credential of a stage; `secret` tells credentials of one stage apart."""

    __slots__ = ("exclusive", "refresh_before", "renewal_window", "secret", "shareable", "stage")

    kind = "scripted"

    def __init__(
        self,
        stage: Stage,
        *,
        secret: str = "s",  # a name, no secret
        renewal_window: float | None = None,
        refresh_before: float | None = None,
        exclusive: bool = False,
        shareable: bool = True,
    ) -> None:
        self.stage = stage
        self.secret = secret
        self.renewal_window = renewal_window
        self.refresh_before = refresh_before
        self.exclusive = exclusive
        self.shareable = shareable

    def identity(self) -> tuple[object, ...]:
        return (id(self.stage), self.secret)

    async def fetch(self, http: TokenHTTP) -> Grant:
        self.stage.calls.append(self.stage.clock.monotonic())
        return await self.stage.answer()


class Needy(Scripted):
    """A credential whose own request needs the token of another one."""

    __slots__ = ("other",)
    kind = "needy"

    def __init__(self, stage: Stage, other: Provider, *, secret: str = "s") -> None:  # a name, no secret
        super().__init__(stage, secret=secret)
        self.other = other

    async def fetch(self, http: TokenHTTP) -> Grant:
        await http.token(self.other)
        return await super().fetch(http)
