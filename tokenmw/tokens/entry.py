"""What one process knows of one credential's token."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from tokenmw.redis.token_store import TokenRecord
from tokenmw.values import Token, windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.clock import Instant
    from tokenmw.providers.base import Provider
    from tokenmw.redis.token_store import TokenKeys
    from tokenmw.tokens.failures import Failure

__all__ = ["CachedToken", "TokenEntry"]

_SAME_EXPIRY: Final = 5.0  # seconds; answers count whole seconds, and networks take some
_LEAST_QUIET: Final = 60.0


class CachedToken:
    """One token with its times by both clocks.

    Fresh until `refresh`; aging until `stop`: still handed out while a new one is fetched; then not handed out.

    Attributes:
        version: Its place in the row of this credential's tokens, in all processes.
        end: Its expiry, `Instant`s of both clocks as two floats; likewise `refresh` and `stop`.
        shared: Whether Redis has had it.
        checked: The monotonic time at which it was last compared with Redis.
    """

    __slots__ = (
        "checked",
        "expires_mono",
        "expires_wall",
        "record",
        "refresh_mono",
        "refresh_wall",
        "shared",
        "stop_mono",
        "stop_wall",
        "token",
        "version",
    )

    def __init__(
        self, entry: TokenEntry, record: TokenRecord, *, version: int, left: float, at: Instant, shared: bool
    ) -> None:
        self.record = record
        self.version = version
        self.shared = shared
        self.checked = at.mono
        self.expires_mono = at.mono + left
        self.expires_wall = at.wall + left
        provider = entry.provider
        margin = windows(
            record.lifetime, refresh_before=provider.refresh_before, renewal_window=provider.renewal_window
        )
        # Drawn once per token and instance: drawn at each look, the earliest of many draws would always win.
        refresh = margin.refresh * random.uniform(0.8, 1.0)
        if record.no_refresh_until is not None:
            refresh = min(refresh, record.no_refresh_until)
        refresh = max(refresh, margin.stop)
        self.refresh_mono, self.refresh_wall = self.expires_mono - refresh, self.expires_wall - refresh
        self.stop_mono, self.stop_wall = self.expires_mono - margin.stop, self.expires_wall - margin.stop
        self.token = entry.token_of(record, expires_at=self.expires_wall)

    def left(self, now: Instant) -> float:
        """Return the seconds until expiry by the stricter clock."""
        return min(self.expires_mono - now.mono, self.expires_wall - now.wall)

    def age(self, now: Instant) -> float:
        """Return the seconds since the provider was asked for it."""
        return self.record.lifetime - self.left(now)

    def usable(self, now: Instant) -> bool:
        """Return whether it may be handed out."""
        return now.mono < self.stop_mono and now.wall < self.stop_wall

    def unless_repeated(self, record: TokenRecord, left: float, at: Instant) -> TokenRecord:
        """Return the record of a newer answer; if it only repeats this token, with this one's windows and a pause.

        Asked again at once, the provider would repeat it again, as often as requests come.
        """
        if record.value != self.record.value or at.mono + left > self.expires_mono + _SAME_EXPIRY:
            return record
        no_refresh_until = left - max(_LEAST_QUIET, left / 2)
        return TokenRecord(
            record.value, record.token_type, self.record.lifetime, max(0.0, no_refresh_until), record.extra
        )


class TokenEntry:
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
        tombstone_due_until: The monotonic time until which Redis must know of it; 0 if it does.
        tombstone_until: The same, also if it does: Redis may lose it again.
        rejections: How often in a row a token of this credential was reported invalid.
        ignore_reports_until: Reports before this monotonic time are ignored: the provider has just repeated the token,
            or new ones are rejected as well.
    """

    __slots__ = (
        "asked",
        "current",
        "dead",
        "failure",
        "ignore_reports_until",
        "keys",
        "name",
        "provider",
        "rejections",
        "tombstone_due_until",
        "tombstone_until",
        "used",
    )

    def __init__(self, provider: Provider, name: str, *, keys: TokenKeys | None) -> None:
        self.provider = provider
        self.name = name
        self.keys = keys
        self.current: CachedToken | None = None
        self.failure: Failure | None = None
        self.used = False
        self.asked = 0
        self.dead = 0
        self.tombstone_due_until = self.tombstone_until = 0.0
        self.rejections = 0
        self.ignore_reports_until = float("-inf")

    @property
    def known(self) -> int:
        """The highest version that is of no use any more to whoever looks for a new token."""
        return max(self.dead, 0 if self.current is None else self.current.version)

    def mark_invalid(self, version: int, *, until: float, told: bool = False) -> None:
        """Take a version, and all before it, for invalid; Redis must know until that monotonic time, if it does not."""
        self.dead = max(self.dead, version)
        # No sooner than before: whoever still has an older token would offer it.
        self.tombstone_until = max(self.tombstone_until, until)
        if not told:
            self.tombstone_due_until = self.tombstone_until

    def token_of(self, record: TokenRecord, *, expires_at: float) -> Token:
        """Return the token of a record, under this entry's name."""
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

    def token_unshared(self, now: Instant) -> bool:
        """Return whether Redis has yet to be told of the token; of one that has ended it is not told any more."""
        return (
            self.keys is not None
            and self.current is not None
            and not self.current.shared
            and self.current.left(now) > 0
        )

    def tombstone_unshared(self, now: Instant) -> bool:
        """Return whether Redis has yet to be told that a token is invalid."""
        return self.keys is not None and self.tombstone_due_until > now.mono

    def __repr__(self) -> str:
        return f"<TokenEntry of {self.name}>"


def _frozen(extra: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return extra or None
