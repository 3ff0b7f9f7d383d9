"""The cost of a lookup among many keys without this package: in a bare dict and in other caches.

Random keys of a large dict are not in the processor's caches. These figures separate that cost from the package's own.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import cachetools

__all__ = ["Lookup", "lookups", "per_entry"]

Lookup = Callable[[Sequence[bytes]], Awaitable[float]]
"""Takes keys, and returns the microseconds per lookup."""
_NONE: tuple[str, ...] = ()
_MISSING = ("cashews: not installed; install .[bench]",)


class _Entry:
    """The fields of a session entry: a str, two times and two flags."""

    __slots__ = ("id", "one", "other", "slid", "used")

    def __init__(self, number: int) -> None:
        self.id = f"{number:036}"
        self.used = self.slid = float(number)
        self.one = self.other = False


async def lookups(
    key: Callable[[int], bytes], count: int, *, stack: AsyncExitStack
) -> tuple[dict[str, Lookup], tuple[str, ...]]:
    """Fill a dict and other caches with `count` keys; return a lookup function for each, and notes on missing ones."""
    plain: dict[bytes, _Entry] = {key(number): _Entry(number) for number in range(count)}
    timed = _timed(key, count)
    found: dict[str, Lookup] = {"bare dict": partial(_in, plain), "cachetools.TTLCache": partial(_in, timed)}
    if importlib.util.find_spec("cashews") is None:
        return found, _MISSING
    cache = importlib.import_module("cashews").Cache()
    # Its own housekeeping would scan the whole cache every second.
    cache.setup(f"mem://?size={2 * count}&check_interval=0")
    stack.push_async_callback(cache.close)
    for number in range(count):
        await cache.set(key(number).decode(), _Entry(number), expire=3600)
    found["cashews memory"] = partial(_in_cashews, cache)
    return found, _NONE


def per_entry(key: Callable[[int], bytes], count: int) -> dict[str, float]:
    """Return the bytes per entry of a dict and of a TTLCache."""

    def traced(make: Callable[[], Any]) -> float:
        gc.collect()
        tracemalloc.start()
        held = make()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(held) == count
        return taken / count

    return {
        "bare dict": traced(lambda: {key(number): _Entry(number) for number in range(count)}),
        "cachetools.TTLCache": traced(lambda: _timed(key, count)),
    }


def _timed(key: Callable[[int], bytes], count: int) -> cachetools.TTLCache[bytes, _Entry, float]:
    cache: cachetools.TTLCache[bytes, _Entry, float] = cachetools.TTLCache(maxsize=count, ttl=3600)
    for number in range(count):
        cache[key(number)] = _Entry(number)
    return cache


async def _in(entries: Any, keys: Sequence[bytes]) -> float:
    began = time.thread_time()
    for key in keys:
        assert entries[key].id
    return (time.thread_time() - began) / len(keys) * 1e6


async def _in_cashews(cache: Any, keys: Sequence[bytes]) -> float:
    texts = [key.decode() for key in keys]
    began = time.thread_time()
    for text in texts:
        assert (await cache.get(text)).id
    return (time.thread_time() - began) / len(keys) * 1e6
