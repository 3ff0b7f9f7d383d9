"""Bounded local caches, two of them over cachetools. Only the event loop's thread uses them.

cachetools is not thread-safe, in most caches not even for reads, which change the order. Code that runs in a worker
thread (a sync route) therefore never uses a cache: it holds the entry or the text that the event loop found for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import cachetools

from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LRUCache", "SecondChanceCache", "TTLCache"]

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E", bound="Dated")

_MAX_SECOND_CHANCES: Final = 16  # entries that are placed again to evict one
_MAX_EXPIRED: Final = 10_000  # entries that one `expire` checks, each for about 1 µs of the event loop
_ALREADY_USED: Final = float("-inf")  # a time of placing for an entry that gets a second chance in any case
# Entries placed within this time share one number, which takes 24 bytes: seconds, and a fraction of the idle time.
_SHARED_SECONDS: Final = 1.0
_SHARED_PART: Final = 1_000


class LRUCache(Unpicklable, cachetools.LRUCache[K, V]):
    """Keeps the most recently used entries, up to `maxsize`. An entry's own data says when it has expired."""

    def entries(self) -> list[tuple[K, V]]:
        """Return a copy of all entries. It does not count as use."""
        # `values()` and `items()` read each entry by its key, and that makes it the most recently used one.
        return [(key, cachetools.Cache.__getitem__(self, key)) for key in self]

    def __repr__(self) -> str:
        return f"<{len(self)} of {self.maxsize:.0f} entries>"  # the keys are credentials


class TTLCache(Unpicklable, cachetools.TTLCache[K, V]):
    """Keeps entries for `ttl` seconds after they were set, up to `maxsize`.

    Reads do not delete expired entries, so housekeeping calls `expire()`.
    """

    def __init__(self, maxsize: int, ttl: float, *, timer: Callable[[], float]) -> None:
        super().__init__(maxsize, ttl, timer)

    def __repr__(self) -> str:
        return f"<{self.currsize:.0f} of {self.maxsize:.0f} entries>"  # the keys are digests of API keys and tokens


class Dated(Protocol):
    """An entry of a `SecondChanceCache`.

    Attributes:
        used: When it was last used, by the cache's timer; the code that uses it writes this.
        placed: When it was placed behind all others; the cache writes this. It was used since if `used` is later.
    """

    used: float
    placed: float


class SecondChanceCache(Unpicklable, Generic[K, E]):
    """Keeps the entries used within `idle` seconds, up to `maxsize`.

    It evicts by the second-chance algorithm (CLOCK): of the entry placed first, evict it if it was not used since;
    else place it behind all others and try the next one. LRU would write the new order at each read, to memory that is
    in no processor cache once there are a million entries.

    A dict and a queue of its keys take 60 bytes for each entry; a cache of cachetools takes 170. To save the memory of
    their numbers, entries that are placed within one second of each other have the same `placed`, the earliest of these
    times, and a use of that second before the placing is dated back to it.

    Attributes:
        maxsize: The bound.
        entries: The entries by key. A warm path reads them here, with one lookup; only this class changes them.
    """

    __slots__ = ("_idle", "_order", "_placed", "_shared_seconds", "_timer", "entries", "maxsize")

    def __init__(self, maxsize: int, idle: float, *, timer: Callable[[], float]) -> None:
        self.maxsize = maxsize
        self.entries: dict[K, E] = {}
        self._order: deque[K] = deque()  # each key once, those placed first on the left
        self._idle = idle
        self._placed = _ALREADY_USED  # the time that the entries placed last share
        self._shared_seconds = min(_SHARED_SECONDS, idle / _SHARED_PART)
        self._timer = timer

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self.entries)

    def __getitem__(self, key: K) -> E:
        return self.entries[key]

    def __setitem__(self, key: K, entry: E) -> None:
        """Add an entry that is used now, or replace the key's entry by it."""
        if key in self.entries:
            # It stays where it is in the order, and is placed behind all others when its turn comes.
            entry.placed = _ALREADY_USED
            self.entries[key] = entry
            return
        if len(self.entries) >= self.maxsize:
            self._evict()
        self._place(key, entry, entry.used)
        self.entries[key] = entry

    def get(self, key: K) -> E | None:
        """Return an entry, or None. It does not count as use."""
        return self.entries.get(key)

    def expire(self) -> None:
        """Delete idle entries. Housekeeping calls it; each entry is checked about once in `idle` seconds.

        One call checks 10 000 entries at most, because after a flood more than that become idle together.
        """
        now = self._timer()
        for _ in range(min(len(self._order), _MAX_EXPIRED)):
            key = self._order[0]
            entry = self.entries[key]
            if now - entry.placed <= self._idle:
                return
            self._order.popleft()
            if now - entry.used > self._idle:
                del self.entries[key]
            else:
                self._place(key, entry, now)

    def _evict(self) -> None:
        now = self._timer()
        for _ in range(_MAX_SECOND_CHANCES):
            key = self._order.popleft()
            entry = self.entries[key]
            if entry.used <= entry.placed or now - entry.used > self._idle:
                del self.entries[key]
                return
            self._place(key, entry, now)
        # The next one, in use or not: no request examines all entries.
        del self.entries[self._order.popleft()]

    def _place(self, key: K, entry: E, now: float) -> None:
        # The timer never goes back, but an entry may have been made before another one and added after it.
        if not 0.0 <= now - self._placed <= self._shared_seconds:
            self._placed = now
        entry.placed = self._placed
        entry.used = min(self._placed, entry.used)
        self._order.append(key)

    def __repr__(self) -> str:
        return f"<{len(self.entries)} of {self.maxsize} entries>"  # the keys are API keys
