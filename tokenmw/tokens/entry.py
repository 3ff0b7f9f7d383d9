"""What one process knows of one credential: the current token, the last failure, the highest invalid version."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tokenmw.providers.answer import number
from tokenmw.redaction import Unpicklable
from tokenmw.redis.token_store import TokenRecord
from tokenmw.values import Token, windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Instant
    from tokenmw.providers.base import Provider
    from tokenmw.redis.token_store import TokenKeys
    from tokenmw.tokens.clients import ClientEntry
    from tokenmw.tokens.failures import Failure

__all__ = ["CachedToken", "TokenEntry"]

_SAME_EXPIRY: Final = 5.0  # seconds; responses give whole seconds, and a round trip takes time
_MIN_WITHOUT_REFRESH: Final = 60.0  # seconds for which a provider that repeated its token is not asked again


class CachedToken(Unpicklable):
    """One token with its times by both clocks.

    It is fresh until `refresh`, then aging until `stop`: still returned while a new one is fetched. After `stop` it is
    expired for this package, a few seconds before the provider's own expiry.

    Attributes:
        token: What handlers get.
        record: What is stored of it in Redis.
        version: The fencing version: of two tokens of one credential, in any process, the higher one is newer.
        shared: Whether it has been stored in Redis.
        announced: Whether it was in Redis at any time; stored again after a loss of data, it is no news for the others.
        checked: The monotonic time at which it was last compared with Redis.
    """

    __slots__ = (
        "announced",
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
        self.shared = self.announced = shared
        self.checked = at.mono
        self.expires_mono = at.mono + left
        self.expires_wall = at.wall + left
        provider = entry.provider
        window = windows(
            record.lifetime,
            refresh_before=provider.refresh_before,
            renewal_window=provider.renewal_window,
            # From `extra`, because a field more in the record would be damage to processes of 0.1.
            refresh_in=number(record.extra.get("refresh_in")),
        )
        # Drawn once per token and instance: drawn at each read, the earliest of many draws would always win.
        refresh = window.refresh * random.uniform(0.8, 1.0)
        if record.no_refresh_until is not None:
            refresh = min(refresh, record.no_refresh_until)
        refresh = max(refresh, window.stop)
        self.refresh_mono, self.refresh_wall = self.expires_mono - refresh, self.expires_wall - refresh
        self.stop_mono, self.stop_wall = self.expires_mono - window.stop, self.expires_wall - window.stop
        scheme = provider.scheme
        self.token = Token(
            record.value,
            provider=entry.name,
            expires_at=self.expires_wall,
            token_type=record.token_type,
            extra=record.extra or None,
            # "N_A" is no word for a header: the token is no access token (RFC 8693 §2.2.1).
            scheme=None if record.token_type == "N_A" else record.token_type if scheme == "Bearer" else scheme,
            origin=entry,
        )

    def left(self, now: Instant) -> float:
        """Return the seconds until expiry, by the stricter clock."""
        return min(self.expires_mono - now.mono, self.expires_wall - now.wall)

    def age(self, now: Instant) -> float:
        """Return the seconds since the provider was asked for it."""
        return self.record.lifetime - self.left(now)

    def fresh(self, now: Instant) -> bool:
        """Return whether it need not be refreshed yet."""
        return now.mono < self.refresh_mono and now.wall < self.refresh_wall

    def usable(self, now: Instant) -> bool:
        """Return whether it may be returned to a request."""
        return now.mono < self.stop_mono and now.wall < self.stop_wall

    def merged(self, record: TokenRecord, left: float, at: Instant) -> TokenRecord:
        """Return the record of a newer grant; one that repeats this token keeps this one's windows.

        A repeated token is not refreshed for a while: the provider would repeat it again, at each request.
        """
        if record.value != self.record.value or at.mono + left > self.expires_mono + _SAME_EXPIRY:
            return record
        no_refresh_until = max(0.0, left - max(_MIN_WITHOUT_REFRESH, left / 2))
        return TokenRecord(record.value, record.token_type, self.record.lifetime, no_refresh_until, record.extra)


class TokenEntry(Unpicklable):
    """Everything that one process knows of one credential's token. Data only: it outlives an event loop.

    Attributes:
        provider: The credential.
        client: If the token is made from a caller's own, what all such entries of its client share; else None.
        name: The provider's name, for log lines, errors and `Token.provider`.
        named: Whether that name says which credential it is; not so for those that a callable has chosen.
        given_label: What the program's `label` calls the credential, once it has failed; else "".
        keys: Its Redis keys; None if its token is not shared.
        current: The token in use, or None.
        failure: Why the last attempt gave no token; None after a success.
        used: Whether a request has used the token since housekeeping last compared it with Redis.
        refreshing_until: The monotonic time by which the last refresh is over. A time, not a count: a refresh whose
            event loop has stopped never ends.
        requested_version: The version of the token that was requested last, and perhaps is being fetched now.
        retried_version: The version of the last request of an operator to retry that this process has followed.
        invalid_version: The highest version known to be invalid.
        tombstone_until: The monotonic time until which Redis must hold a tombstone for `invalid_version`.
        tombstone_due_until: The same while Redis may not have it yet; 0 once it does.
        rejections: How often in a row a token of this credential was reported invalid.
        ignore_reports_until: Reports before this monotonic time are ignored: the provider has just repeated the token,
            or its new tokens are rejected as well.
    """

    __slots__ = (
        "__weakref__",
        "_digest",
        "client",
        "current",
        "failure",
        "given_label",
        "ignore_reports_until",
        "invalid_version",
        "keys",
        "name",
        "named",
        "provider",
        "refreshing_until",
        "rejections",
        "requested_version",
        "retried_version",
        "tombstone_due_until",
        "tombstone_until",
        "used",
    )

    def __init__(
        self,
        provider: Provider,
        name: str,
        *,
        keys: TokenKeys | None,
        digest: Callable[[Provider], str] = lambda _provider: "",
    ) -> None:
        self.provider = provider
        self.name = name
        self.named = False
        self.given_label = ""
        self._digest = digest
        self.keys = keys
        self.client: ClientEntry | None = None
        self.current: CachedToken | None = None
        self.failure: Failure | None = None
        self.used = False
        self.refreshing_until = float("-inf")
        self.requested_version = 0
        self.retried_version = 0
        self.invalid_version = 0
        self.tombstone_until = self.tombstone_due_until = 0.0
        self.rejections = 0
        self.ignore_reports_until = float("-inf")

    @property
    def credential(self) -> str:
        """An opaque name of the credential; "" if the provider's name says which one it is."""
        return "" if self.named else self._digest(self.provider)

    @property
    def label(self) -> str:
        """The provider's name, with the opaque name of the credential if it needs one."""
        credential = self.credential
        return f"{self.name}[{credential}]" if credential else self.name

    @property
    def log_kind(self) -> str:
        """The kind of its log lines: the success of one tenant is no recovery of another."""
        credential = self.credential
        return f"provider:{self.name}:{credential}" if credential else f"provider:{self.name}"

    @property
    def known_version(self) -> int:
        """The highest version that a refresh need not return: the current token's, or one known to be invalid."""
        return max(self.invalid_version, 0 if self.current is None else self.current.version)

    def served_for(self, now: Instant) -> float:
        """Return the seconds for which the current token may still be returned to requests; 0 without one."""
        current = self.current
        return 0.0 if current is None else max(0.0, min(current.stop_mono - now.mono, current.stop_wall - now.wall))

    def in_backoff(self, now: Instant) -> bool:
        """Return whether it is too early to ask the provider again after its failure.

        Without a valid token requests are refused, so that it is asked more often.
        """
        failure = self.failure
        return failure is not None and failure.in_backoff(now.mono, served=self.served_for(now) > 0)

    def retry_in(self, now: Instant) -> float | None:
        """Return the seconds until the provider may be asked again; None after a success."""
        failure = self.failure
        if failure is None:
            return None
        return max(0.0, (failure.retry_at if self.served_for(now) > 0 else failure.probe_at) - now.mono)

    def mark_invalid(self, version: int, *, until: float, redis_knows: bool = False) -> None:
        """Mark a version, and all before it, as invalid; Redis needs a tombstone until that monotonic time."""
        self.invalid_version = max(self.invalid_version, version)
        # Never earlier than before: a process that still has an older token would upload it.
        self.tombstone_until = max(self.tombstone_until, until)
        if not redis_knows:
            self.tombstone_due_until = self.tombstone_until

    def redate(self, server_time: float, now: Instant) -> None:
        """Replace versions that do not agree with the Redis server's clock, in seconds since 1970, by that clock.

        Versions disagree after that clock, or that of a process without Redis, was wrong by more than a day.
        """
        latest = int(server_time * 1_000_000)
        self.invalid_version = min(self.invalid_version, latest)
        self.requested_version = min(self.requested_version, latest)
        if self.current is not None:
            requested = int((server_time - self.current.age(now)) * 1_000_000)
            self.current.version = max(requested, self.invalid_version + 1)

    def mark_unshared(self, now: float) -> None:
        """Assume that Redis has lost the token and the tombstone, so that housekeeping uploads both again."""
        if self.keys is None:
            return
        if self.current is not None:
            self.current.shared = False
        if self.tombstone_until > now:
            self.tombstone_due_until = self.tombstone_until

    def token_unshared(self, now: Instant) -> bool:
        """Return whether the token has yet to be uploaded; an expired one is not uploaded any more."""
        current = self.current
        return self.keys is not None and current is not None and not current.shared and current.left(now) > 0

    def tombstone_unshared(self, now: Instant) -> bool:
        """Return whether the tombstone has yet to be uploaded."""
        return self.keys is not None and self.tombstone_due_until > now.mono

    def __repr__(self) -> str:
        return f"<TokenEntry of {self.name}>"
