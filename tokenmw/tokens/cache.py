"""The token entries of this process, and the tokens that an API rejected: bounded data that outlives an event loop."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from tokenmw.caches import LRUCache, TTLCache
from tokenmw.clock import Instant
from tokenmw.providers.base import check_provider, check_same_class
from tokenmw.redaction import Unpicklable
from tokenmw.tokens.clients import ClientEntry
from tokenmw.tokens.entry import TokenEntry
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.base import Provider
    from tokenmw.redis.token_store import TokenKeys

__all__ = ["RejectedTokens", "TokenCache"]

# Seconds after its backoff for which a failure is kept: without its count, the backoff of a credential that is rarely
# used would never grow, and each of its requests would wait for a provider that hangs.
_FAILURE_KEPT: Final = 600.0


_FULL: Final = (
    "More tokens are in use than Limits(%s=%d); the least recently used one is evicted, and fetched or read from Redis "
    "again: raise the bound, if there is memory for it"
)


class TokenCache(Unpicklable):
    """One entry for each credential: the most recently used, up to `Limits(tokens=…)`, and all named ones.

    Credentials of callers are apart, up to `Limits(subject_tokens=…)`: a flood of callers evicts no tenant's token.

    An entry that was evicted is found again as long as anything refers to it, such as its refresh or a failure that it
    caused, so that no credential has two entries.

    Args:
        limits: `tokens` is the bound, and `subject_tokens` that of the tokens made from callers' own.
        clock: Time; it decides which tokens have expired.
        keys_of: Returns a provider's Redis keys; None if its token is not shared.
        digest_of: Returns an opaque name of a provider's credential, for log lines and events.
        log: Gets that a token was evicted that could still be used.
    """

    __slots__ = (
        "_alive",
        "_by_key",
        "_clients",
        "_clock",
        "_digest_of",
        "_keys_of",
        "_log",
        "_named",
        "_named_clients",
        "_of_subjects",
        "_recent",
    )

    def __init__(
        self,
        *,
        limits: Limits,
        clock: Clock,
        keys_of: Callable[[Provider], TokenKeys | None],
        digest_of: Callable[[Provider], str] = lambda _provider: "",
        log: ThrottledLog,
    ) -> None:
        self._clock = clock
        self._log = log
        self._keys_of = keys_of
        self._digest_of = digest_of
        self._recent: LRUCache[Provider, TokenEntry] = LRUCache(limits.tokens)
        self._of_subjects: LRUCache[Provider, TokenEntry] = LRUCache(limits.subject_tokens)
        self._named: dict[Provider, TokenEntry] = {}
        self._alive: WeakValueDictionary[tuple[object, ...], TokenEntry] = WeakValueDictionary()
        self._clients: WeakValueDictionary[Provider, ClientEntry] = WeakValueDictionary()
        self._named_clients: dict[Provider, ClientEntry] = {}
        self._by_key: WeakValueDictionary[bytes, TokenEntry] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._recent) + len(self._of_subjects) + len(self._named)

    def __iter__(self) -> Iterator[TokenEntry]:
        # A copy: the caller awaits between two entries, and requests change the caches meanwhile.
        caches = (self._recent, self._of_subjects)
        return iter([*self._named.values(), *(entry for cache in caches for _, entry in cache.entries())])

    def entry(self, provider: Provider, name: str) -> TokenEntry:
        """Return the entry of a credential; a new one gets this name.

        Raises:
            ConfigurationError: The provider's attributes or methods cannot work.
        """
        recent = self._of_subjects if provider.per_subject else self._recent
        try:
            return recent[provider]
        except KeyError:
            pass
        entry = self._named.get(provider)
        if entry is None:
            # By name, not by class: two classes of one name have the same keys in Redis.
            names = (provider.key_parts, provider._part_types)
            entry = self._alive.get(names)
            if entry is None:
                check_provider(provider)
                keys, digest = self._keys_of(provider), self._digest_of
                entry = self._alive[names] = TokenEntry(provider, name, keys=keys, digest=digest)
                entry.client = self.client(provider, name)
                if entry.keys is not None:
                    self._by_key[entry.keys.token] = entry
            else:
                check_same_class(provider, other=entry.provider)
            self._add(recent, provider, entry)
        return entry

    def client(self, provider: Provider, name: str) -> ClientEntry | None:
        """Return what all callers of a provider share; None if its token is not made from a caller's own."""
        key = provider.for_all_subjects()
        if key is None:
            return None
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = ClientEntry(key, name, digest=self._digest_of)
        return client

    def add_named_client(self, provider: Provider, name: str) -> None:
        """Keep what all callers of a provider share that the broker has by name, however few callers there are."""
        client = self.client(provider, name)
        if client is not None:
            self._named_clients[client.provider] = client
            client.named = True

    def _add(self, recent: LRUCache[Provider, TokenEntry], provider: Provider, entry: TokenEntry) -> None:
        if len(recent) >= recent.maxsize:
            _key, evicted = recent.popitem()
            if evicted.current is not None and evicted.current.usable(Instant(self._clock)):
                option = "subject_tokens" if recent is self._of_subjects else "tokens"
                self._log.problem(f"{option}-full", _FULL, option, int(recent.maxsize))
        recent[provider] = entry

    def of_key(self, key: bytes) -> TokenEntry | None:
        """Return the entry whose token has this key in Redis, if this process has one."""
        return self._by_key.get(key)

    def add_named(self, provider: Provider, name: str) -> TokenEntry:
        """Return the entry of a provider that the broker has by name; it is never evicted."""
        entry = self.entry(provider, name)
        if entry.provider is not provider:
            check_provider(provider)  # an equal credential, but its `hosts` may differ
        self._recent.pop(provider, None)
        self._named[provider] = entry
        entry.named = True
        return entry

    def purge(self) -> None:
        """Drop expired tokens, and entries that nothing needs, so that no credential stays in memory for ever."""
        for cache in (self._recent, self._of_subjects):
            self._purge(cache)

    def _purge(self, cache: LRUCache[Provider, TokenEntry]) -> None:
        now = Instant(self._clock)
        for provider, entry in cache.entries():
            usable = entry.current is not None and entry.current.usable(now)
            if not usable:
                entry.current = None
            failed = 0.0 if entry.failure is None else entry.failure.retry_at + _FAILURE_KEPT
            # Redis may lose a tombstone that it has, so the entry stays until the tombstone expires.
            needed_until = max(entry.refreshing_until, entry.tombstone_until, entry.ignore_reports_until, failed)
            if not usable and needed_until < now.mono:
                cache.pop(provider, None)


class RejectedTokens(Unpicklable):
    """A bounded set of digests of token values that an API rejected: no stale copy of one is adopted from Redis."""

    __slots__ = ("_digests",)

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        self._digests: TTLCache[bytes, None] = TTLCache(limits.rejected, MAX_LIFETIME, timer=clock.monotonic)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and _digest(value) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, value: str) -> None:
        """Remember a token's value; beyond the bound the oldest one is evicted."""
        self._digests[_digest(value)] = None

    def discard(self, value: str) -> bool:
        """Forget a value that its provider has just granted again. Return whether it was remembered."""
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
