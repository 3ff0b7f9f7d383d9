"""The memory of a program: every container that can be reached from an object, and figures of the process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["ReachableObjects", "Sample", "sample", "slope"]

_CONTAINERS = (dict, list, tuple, set, frozenset, deque, bytearray)
# These refer to nothing, so they form no chains; those in a container count as its entries.
_PLAIN = ("str", "bytes", "int", "float")
# The search stops at these: the whole program can be reached from them.
_BOUNDARIES = (ModuleType, CodeType, asyncio.AbstractEventLoop, logging.Logger, Context)


class ReachableObjects:
    """All objects that can be reached from some objects, and from the modules of a package.

    The garbage collector finds them, not a list of names, so a map, set, queue or chain that is added later is found.

    Args:
        roots: The objects to start from.
        package: A package whose modules and classes are searched as well.
        outside: Objects that are not searched, because they belong to the test.
    """

    def __init__(self, roots: Iterable[object], *, package: str, outside: Iterable[object] = ()) -> None:
        gc.collect()
        self._package = package
        seen: dict[int, object] = {id(boundary): boundary for boundary in outside}
        boundaries = set(seen)
        found = [*roots]
        for name, module in list(sys.modules.items()):
            if name == package or name.startswith(f"{package}."):
                found += vars(module).values()
        while found:
            item = found.pop()
            if id(item) in seen or isinstance(item, _BOUNDARIES):
                continue
            seen[id(item)] = item
            found += self._referents(item)
        objects = [item for number, item in seen.items() if number not in boundaries]
        self.types = Counter(type(item).__qualname__ for item in objects)
        containers: list[Any] = [item for item in objects if isinstance(item, _CONTAINERS)]
        self.containers = {id(item): (item, len(item)) for item in containers}

    def grown_over(self, most: int, *, since: ReachableObjects) -> list[str]:
        """Return the containers longer than `most` that have grown since `since`, each with its length and an entry."""
        found: list[str] = []
        for number, (container, length) in self.containers.items():
            _, before = since.containers.get(number, (None, 0))
            if length > max(most, before):
                found.append(f"{type(container).__name__} of {length}, was {before}: {_first_entry(container)}")
        return found

    def more_of(self, *, since: ReachableObjects, than: int) -> dict[str, tuple[int, int]]:
        """Return the types with over `than` more objects than in `since`, with both counts."""
        return {
            name: (since.types[name], count)
            for name, count in self.types.items()
            if count > since.types[name] + than and name not in _PLAIN
        }

    def _referents(self, item: object) -> list[object]:
        if isinstance(item, FunctionType):
            # Its globals are those of a module; only a closure is its own.
            return [*(item.__closure__ or ()), *(item.__defaults__ or ()), item.__dict__]
        if isinstance(item, type):
            ours = item.__module__.partition(".")[0] == self._package
            return list(vars(item).values()) if ours else []
        return gc.get_referents(item)


def _first_entry(container: Any) -> str:
    for entry in container:
        return repr(entry)[:80]
    return "empty"


@dataclass(frozen=True)
class Sample:
    """Figures of a process at one time.

    Attributes:
        requests: The number of requests served.
        seconds: The monotonic time.
        memory: Bytes, as the caller measured them.
        tasks: Tasks of the running event loop.
        sockets: Open files and sockets.
    """

    requests: int
    seconds: float
    memory: int
    tasks: int
    sockets: int


def sample(requests: int, *, memory: int | None = None) -> Sample:
    """Return figures of this process; `memory` is its resident memory (Linux only) if not given."""
    gc.collect()
    if memory is None:
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    sockets = sum(1 for _ in Path("/dev/fd").iterdir())
    return Sample(requests, time.monotonic(), memory, len(asyncio.all_tasks()), sockets)


def slope(samples: list[Sample]) -> float:
    """Return the bytes by which memory grew with each request, by least squares over the last half of the samples."""
    half = samples[len(samples) // 2 :]
    mean_requests = sum(item.requests for item in half) / len(half)
    mean_memory = sum(item.memory for item in half) / len(half)
    above = sum((item.requests - mean_requests) * (item.memory - mean_memory) for item in half)
    return above / sum((item.requests - mean_requests) ** 2 for item in half)
