"""Bounded local caches, over cachetools. Only the event loop's thread uses them.

cachetools is not thread-safe, in most caches not even for reads, which change the order. Code that runs in a worker
thread (a sync route) therefore never uses a cache: it holds the entry or the text that the event loop found for it.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import cachetools

from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LRUCache", "SecondChanceCache", "TTLCache"]

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E", bound="Dated")

_MAX_SECOND_CHANCES: Final = 16  # entries that are placed again to evict one
_FIRST_USE: Final = 1.0  # seconds; all requests within this time of an entry's placing count as its first use


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
        placed: When it was placed behind all others; the cache writes this.
    """

    used: float
    placed: float


class SecondChanceCache(Unpicklable, cachetools.FIFOCache[K, E]):
    """Keeps the entries used within `idle` seconds, up to `maxsize`. A read is one lookup in a dict.

    It evicts by the second-chance algorithm (CLOCK): of the entry placed first, evict it if it was not used since;
    else place it behind all others and try the next one. LRU would write the new order at each read, to memory that is
    in no processor cache once there are a million entries.
    """

    def __init__(self, maxsize: int, idle: float, *, timer: Callable[[], float]) -> None:
        super().__init__(maxsize)
        self._idle = idle
        self._timer = timer

    def __setitem__(self, key: K, entry: E) -> None:
        entry.placed = self._timer()
        self.pop(key, None)  # a dict leaves a key that is set again where it was
        super().__setitem__(key, entry)

    def popitem(self) -> tuple[K, E]:
        """Evict one entry and return it."""
        now = self._timer()
        for _ in range(_MAX_SECOND_CHANCES):
            key, entry = super().popitem()
            if entry.used < entry.placed + _FIRST_USE or now - entry.used > self._idle:
                return key, entry
            self[key] = entry
        # The next one, in use or not: no request examines all entries.
        return super().popitem()

    def expire(self) -> None:
        """Delete idle entries. Housekeeping calls it; each entry is checked about once in `idle` seconds."""
        now = self._timer()
        for key in list(takewhile(lambda key: now - self[key].placed > self._idle, self)):
            entry = self[key]
            if now - entry.used > self._idle:
                del self[key]
            else:
                self[key] = entry

    def __repr__(self) -> str:
        return f"<{len(self)} of {self.maxsize:.0f} entries>"  # the keys are API keys
