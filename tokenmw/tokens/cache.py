"""The entries of this process: one for each credential, however often and under however many names it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.caches import LRUCache
from tokenmw.clock import Instant
from tokenmw.providers.base import check_provider
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider
    from tokenmw.redis.token_store import TokenKeys
import hashlib
from typing import TYPE_CHECKING

from tokenmw.caches import TTLCache
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.limits import Limits

__all__ = ["RejectedTokens", "TokenCache"]

# Seconds after the pause: a tenant that asks seldom must find how often it has failed, or its pauses never grow, and
# each of its requests waits for a provider that hangs as if it were the first.
_FAILURE_KEPT: Final = 600.0


class TokenCache:
    """Keeps the entries used last, up to `Limits(tokens=…)`, and those of the named providers for ever.

    Args:
        limits: `tokens` is the bound.
        clock: For what has ended.
        keys_of: Gives a provider's Redis keys; None if its token is not shared.
        flying: Gives the entry that is being filled for a provider. It may have made room for others meanwhile, and is
            the one to be had again: a flight fills no second one.
    """

    __slots__ = ("_clock", "_flying", "_keys_of", "_named", "_recent")

    def __init__(
        self,
        *,
        limits: Limits,
        clock: Clock,
        keys_of: Callable[[Provider], TokenKeys | None],
        flying: Callable[[Provider], TokenEntry | None],
    ) -> None:
        self._clock = clock
        self._keys_of = keys_of
        self._flying = flying
        self._recent: LRUCache[Provider, TokenEntry] = LRUCache(limits.tokens)
        self._named: dict[Provider, TokenEntry] = {}

    def __len__(self) -> int:
        return len(self._recent) + len(self._named)

    def __iter__(self) -> Iterator[TokenEntry]:
        # A copy: the caller awaits between two of them, and requests change the caches meanwhile.
        return iter([*self._named.values(), *(entry for _, entry in self._recent.entries())])

    def entry(self, provider: Provider, name: str) -> TokenEntry:
        """Return the entry of a credential; a new one gets this name."""
        try:
            return self._recent[provider]
        except KeyError:
            pass
        entry = self._named.get(provider)
        if entry is None:
            entry = self._flying(provider)
            if entry is None:
                check_provider(provider)
                entry = TokenEntry(provider, name, keys=self._keys_of(provider))
            self._recent[provider] = entry
        return entry

    def name(self, provider: Provider, name: str) -> TokenEntry:
        """Return the entry of a provider that the broker has by name; it stays."""
        entry = self.entry(provider, name)
        if entry.provider is not provider:
            check_provider(provider)  # equal as a credential, and of its own in where its token may go
        self._recent.pop(provider, None)
        self._named[provider] = entry
        return entry

    def purge(self, *, keep: Callable[[TokenEntry], bool]) -> None:
        """Drop entries that hold nothing of use any more: a token or credential does not stay in memory for ever."""
        now = Instant(self._clock)
        for provider, entry in self._recent.entries():
            usable = entry.current is not None and entry.current.usable(now)
            if not usable:
                entry.current = None
            failed = 0.0 if entry.failure is None else entry.failure.until + _FAILURE_KEPT
            waiting = max(entry.tombstone_until, entry.ignore_reports_until, failed)  # Redis may lose what it was told
            if not usable and waiting < now.mono and not keep(entry):
                self._recent.pop(provider, None)


class RejectedTokens:
    """A bounded set of digests; the values themselves are not kept."""

    __slots__ = ("_digests",)

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        self._digests: TTLCache[bytes, None] = TTLCache(limits.rejected, MAX_LIFETIME, timer=clock.monotonic)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and _digest(value) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, value: str) -> None:
        """Remember a value; the one remembered longest ago makes place."""
        self._digests[_digest(value)] = None

    def forgive(self, value: str) -> bool:
        """Forget a value that its provider has just given out again. Return whether it was remembered."""
        digest = _digest(value)
        if digest not in self._digests:
            return False
        del self._digests[digest]
        return True

    def purge(self) -> None:
        """Drop what has expired."""
        self._digests.expire()


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
