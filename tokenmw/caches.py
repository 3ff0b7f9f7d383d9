"""The local caches: bounded, over cachetools, and touched by the event loop's thread only.

cachetools is not safe across threads, in most caches not even for reads, which reorder. Code that runs in a worker
thread (a sync route) therefore never gets at a cache: it holds the entry or the text that the loop looked up for it.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

import cachetools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LRUCache", "SecondChanceCache", "TTLCache"]

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E", bound="Dated")

_CHANCES: Final = 16  # entries looked at to make room for one
_ONE_USE: Final = 1.0  # seconds; all requests of the moment in which a key is first seen count as one use


class LRUCache(cachetools.LRUCache[K, V]):
    """Keeps the entries used last, up to `maxsize`; what is in them says when they are of no use any more."""

    def entries(self) -> list[tuple[K, V]]:
        """Return all entries of this moment. Looking at them so is no use: their order stays."""
        # The usual ways to look, `values()` and `items()`, read each by its key, which makes it the one used last.
        return [(key, cachetools.Cache.__getitem__(self, key)) for key in self]

    def __repr__(self) -> str:
        return f"<{len(self)} of {self.maxsize:.0f} entries>"  # the keys are credentials


class TTLCache(cachetools.TTLCache[K, V]):
    """Keeps entries for `ttl` seconds from when they were set, up to `maxsize`.

    Reads do not delete what has expired, so housekeeping calls `expire()`.
    """

    def __init__(self, maxsize: int, ttl: float, *, timer: Callable[[], float]) -> None:
        super().__init__(maxsize, ttl, timer)

    def names(self) -> list[K]:
        """Return all keys of this moment, also of what has expired and was not deleted yet. It is quick."""
        # Past the look at each one's clock of the usual way, which takes a tenth of a second for 100 000.
        return list(cast("Iterator[K]", cachetools.Cache.__iter__(self)))

    def __repr__(self) -> str:
        return f"<{self.currsize:.0f} of {self.maxsize:.0f} entries>"  # the keys are API keys


class Dated(Protocol):
    """An entry that has its own times.

    Attributes:
        used: When it was used last; written by whoever uses it.
        placed: When it was put behind all others; written by the cache.
    """

    used: float
    placed: float


class SecondChanceCache(cachetools.FIFOCache[K, E]):
    """Keeps entries that were used within `idle` seconds, up to `maxsize`. To find one is a look into a dict.

    The order is not that of use, which would have to be written at each look, all over the memory: of a million
    entries hardly any is in the processor's caches. To make room, the entry placed longest ago goes if it was not used
    since; if it was, it is placed anew. That is the second chance of the algorithm of this name (CLOCK).
    """

    def __init__(self, maxsize: int, idle: float, *, timer: Callable[[], float]) -> None:
        super().__init__(maxsize)
        self._idle = idle
        self._timer = timer

    def __setitem__(self, key: K, entry: E) -> None:
        entry.placed = self._timer()
        self.pop(key, None)  # so that they are looked through in the order in which they were placed
        super().__setitem__(key, entry)

    def popitem(self) -> tuple[K, E]:
        """Take out the entry that goes to make room."""
        now = self._timer()
        for _ in range(_CHANCES):
            key, entry = super().popitem()
            if entry.used < entry.placed + _ONE_USE or now - entry.used > self._idle:
                return key, entry
            self[key] = entry
        # After so many chances given, whichever is next: a request does not go through all of them.
        return super().popitem()

    def names(self) -> list[K]:
        """Return all keys of this moment."""
        return list(self)

    def expire(self) -> None:
        """Drop what has been idle. Called by housekeeping; each entry is looked at about once in the idle time."""
        now = self._timer()
        for key in list(takewhile(lambda key: now - self[key].placed > self._idle, self)):
            entry = self[key]
            if now - entry.used > self._idle:
                del self[key]
            else:
                self[key] = entry

    def __repr__(self) -> str:
        return f"<{len(self)} of {self.maxsize:.0f} entries>"  # the keys are API keys
