"""Reads the sessions again that another process has reset.

A hint has the digest of an API key, and an index from digests to API keys would make each session a third larger. So
the sessions in memory are searched, for all hints that have arrived in one search. Resets are rare. If they are not, as
in a flood of hints, searches take a twentieth of the time at most, and the next touch finds what they leave out.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from tokenmw.observe.error_place import with_place
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.sessions.cache import SessionCache
    from tokenmw.sessions.sync import SessionSync

__all__ = ["SessionHints"]

_MOST_HINTS: Final = 1_000  # that wait for a search; any further ones are dropped
_AT_ONCE: Final = 100  # sessions between two turns of the event loop: their digests take 0.3 ms
_PAUSE: Final = 19.0  # of the time that a search has taken
_LEAST_PAUSE: Final = 0.05  # seconds


class SessionHints(Unpicklable):
    """The hints of sessions, in the event loop in which it was made."""

    __slots__ = ("_cache", "_keys", "_log", "_sync", "_wake")

    def __init__(self, *, cache: SessionCache, sync: SessionSync, log: ThrottledLog) -> None:
        self._cache = cache
        self._sync = sync
        self._log = log
        self._keys: set[bytes] = set()
        self._wake = asyncio.Event()

    def add(self, key: bytes) -> None:
        """Read the session with this key in Redis again, if this process has it."""
        if len(self._cache) and len(self._keys) < _MOST_HINTS:
            self._keys.add(key)
            self._wake.set()

    async def run(self) -> None:
        """Search until cancelled. No exception stops it."""
        task, pause = asyncio.current_task(), 0.0
        # A client of the program's can lose a cancellation. So nothing is awaited between a read and this condition.
        while task is None or not task.cancelling():
            await asyncio.sleep(pause)
            await self._wake.wait()
            self._wake.clear()
            keys, self._keys = self._keys, set()
            took = 0.0
            try:
                found, took = await self._search(keys)
                await self._sync.read_again(found)
            except RedisUnavailable:
                pass  # the next touch reads them
            except Exception as error:  # noqa: BLE001  nobody would notice that hints have no effect any more
                place, reason = with_place(error, called=None), type(error).__name__
                self._log.problem("housekeeping", "Housekeeping: a job raised %s", place, reason=reason)
            pause = max(_LEAST_PAUSE, _PAUSE * took)

    async def _search(self, keys: set[bytes]) -> tuple[list[bytes], float]:
        """Return the local keys of the sessions with these keys in Redis, and the seconds that the search has used."""
        found: list[bytes] = []
        took = 0.0
        local_keys = list(self._cache)
        for start in range(0, len(local_keys), _AT_ONCE):
            began = time.perf_counter()
            for local_key in local_keys[start : start + _AT_ONCE]:
                session = self._cache.get(local_key)
                if session is not None and self._sync.key(local_key, session) in keys:
                    found.append(local_key)
            took += time.perf_counter() - began
            if len(found) == len(keys):
                break
            await asyncio.sleep(0)
        return found, took
