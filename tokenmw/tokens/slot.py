"""What one process knows of one credential's token."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from tokenmw.shared.token_store import TokenRecord
from tokenmw.values import Token, windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.clock import Clock
    from tokenmw.providers.base import Provider
    from tokenmw.shared.token_store import TokenKeys
    from tokenmw.tokens.failures import Failure

__all__ = ["Generation", "Moment", "Slot"]

_SAME_EXPIRY: Final = 5.0  # seconds; answers count whole seconds, and networks take some
_LEAST_QUIET: Final = 60.0


class Moment:
    """Both clocks, read at once. Of two times left, the stricter one counts: clocks step, machines suspend."""

    __slots__ = ("mono", "wall")

    def __init__(self, clock: Clock) -> None:
        self.mono = clock.monotonic()
        self.wall = clock.time()

    def since(self, earlier: Moment) -> float:
        """Return the seconds that have passed since another moment, by the clock that says more."""
        return max(self.mono - earlier.mono, self.wall - earlier.wall)


class Generation:
    """One token with its times by both clocks.

    Fresh until `refresh`; aging until `stop`: still handed out while a new one is fetched; then not handed out.

    Attributes:
        version: Its place in the row of this credential's tokens, in all processes.
        end: Its expiry, `Moment`s of both clocks as two floats; likewise `refresh` and `stop`.
        shared: Whether Redis has had it.
        checked: The monotonic time at which it was last compared with Redis.
    """

    __slots__ = (
        "checked",
        "end_mono",
        "end_wall",
        "record",
        "refresh_mono",
        "refresh_wall",
        "shared",
        "stop_mono",
        "stop_wall",
        "token",
        "version",
    )

    def __init__(self, slot: Slot, record: TokenRecord, *, version: int, left: float, at: Moment, shared: bool) -> None:
        self.record = record
        self.version = version
        self.shared = shared
        self.checked = at.mono
        self.end_mono = at.mono + left
        self.end_wall = at.wall + left
        provider = slot.provider
        margin = windows(record.life, refresh_before=provider.refresh_before, renewal_window=provider.renewal_window)
        # Drawn once per token and instance: drawn at each look, the earliest of many draws would always win.
        refresh = margin.refresh * random.uniform(0.8, 1.0)
        if record.quiet_left is not None:
            refresh = min(refresh, record.quiet_left)
        refresh = max(refresh, margin.stop)
        self.refresh_mono, self.refresh_wall = self.end_mono - refresh, self.end_wall - refresh
        self.stop_mono, self.stop_wall = self.end_mono - margin.stop, self.end_wall - margin.stop
        self.token = slot.token_of(record, expires_at=self.end_wall)

    def left(self, now: Moment) -> float:
        """Return the seconds until expiry by the stricter clock."""
        return min(self.end_mono - now.mono, self.end_wall - now.wall)

    def age(self, now: Moment) -> float:
        """Return the seconds since the provider was asked for it."""
        return self.record.life - self.left(now)

    def usable(self, now: Moment) -> bool:
        """Return whether it may be handed out."""
        return now.mono < self.stop_mono and now.wall < self.stop_wall

    def quiet_if_repeated(self, record: TokenRecord, left: float, at: Moment) -> TokenRecord:
        """Return the record of a newer answer; if it only repeats this token, with this one's windows and a pause.

        Asked again at once, the provider would repeat it again, as often as requests come.
        """
        if record.value != self.record.value or at.mono + left > self.end_mono + _SAME_EXPIRY:
            return record
        quiet_left = left - max(_LEAST_QUIET, left / 2)
        return TokenRecord(record.value, record.token_type, self.record.life, max(0.0, quiet_left), record.extra)


class Slot:
    """Everything that one process knows of one credential's token.

    Attributes:
        provider: The credential.
        name: The provider's name, for texts and for `Token.provider`.
        keys: Its Redis keys; None if its token is not shared.
        now: The generation in use, or None.
        failure: Why the last attempt gave nothing; None after a success.
        used: Whether a request has used the token since housekeeping looked.
        asked: The version of the token that was asked for last, and perhaps is asked for now.
        dead: The highest version known to be invalid.
        dead_until: The monotonic time until which Redis must know of it; 0 if it does.
        dead_end: The same, also if it does: Redis may lose it again.
        rejections: How often in a row a token of this credential was reported invalid.
        deaf_until: Reports before this monotonic time cause nothing: the provider has just repeated the token, or
            new ones are rejected as well.
    """

    __slots__ = (
        "asked",
        "dead",
        "dead_end",
        "dead_until",
        "deaf_until",
        "failure",
        "keys",
        "name",
        "now",
        "provider",
        "rejections",
        "used",
    )

    def __init__(self, provider: Provider, name: str, *, keys: TokenKeys | None) -> None:
        self.provider = provider
        self.name = name
        self.keys = keys
        self.now: Generation | None = None
        self.failure: Failure | None = None
        self.used = False
        self.asked = 0
        self.dead = 0
        self.dead_until = self.dead_end = 0.0
        self.rejections = 0
        self.deaf_until = float("-inf")

    @property
    def known(self) -> int:
        """The highest version that is of no use any more to whoever looks for a new token."""
        return max(self.dead, 0 if self.now is None else self.now.version)

    def condemn(self, version: int, *, until: float, told: bool = False) -> None:
        """Take a version, and all before it, for invalid; Redis must know until that monotonic time, if it does not."""
        self.dead = max(self.dead, version)
        # No sooner than before: whoever still has an older token would offer it.
        self.dead_end = max(self.dead_end, until)
        if not told:
            self.dead_until = self.dead_end

    def token_of(self, record: TokenRecord, *, expires_at: float) -> Token:
        """Return the token of a record, under this slot's name."""
        scheme = self.provider.scheme
        return Token(
            record.value,
            provider=self.name,
            expires_at=expires_at,
            token_type=record.token_type,
            extra=_frozen(record.extra),
            scheme=record.token_type if scheme == "Bearer" else scheme,
            origin=self,
        )

    def token_unshared(self, now: Moment) -> bool:
        """Return whether Redis has yet to be told of the token; of one that has ended it is not told any more."""
        return self.keys is not None and self.now is not None and not self.now.shared and self.now.left(now) > 0

    def death_unshared(self, now: Moment) -> bool:
        """Return whether Redis has yet to be told that a token is invalid."""
        return self.keys is not None and self.dead_until > now.mono

    def __repr__(self) -> str:
        return f"<Slot of {self.name}>"


def _frozen(extra: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return extra or None
