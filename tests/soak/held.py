"""What a program holds: every container that can be reached from an object, and the process's own figures."""

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

__all__ = ["Held", "Sample", "sample", "slope"]

_CONTAINERS = (dict, list, tuple, set, frozenset, deque, bytearray)
# Nothing hangs on these, so they cannot be a chain; as entries of a container they are counted there.
_PLAIN = ("str", "bytes", "int", "float")
# Behind these is the rest of the program, which every object would be found to hold.
_BORDERS = (ModuleType, CodeType, asyncio.AbstractEventLoop, logging.Logger, Context)


class Held:
    """All that some objects hold, and what the modules of a package hold, found by the garbage collector.

    It knows no names: a map, set, queue or chain of objects that is added later is found like those of today.

    Args:
        roots: Where to begin.
        package: A package whose modules and classes are looked into as well.
        outside: Objects that are not entered: they belong to the test.
    """

    def __init__(self, roots: Iterable[object], *, package: str, outside: Iterable[object] = ()) -> None:
        gc.collect()
        self._package = package
        seen: dict[int, object] = {id(border): border for border in outside}
        borders = set(seen)
        found = [*roots]
        for name, module in list(sys.modules.items()):
            if name == package or name.startswith(f"{package}."):
                found += vars(module).values()
        while found:
            one = found.pop()
            if id(one) in seen or isinstance(one, _BORDERS):
                continue
            seen[id(one)] = one
            found += self._referents(one)
        objects = [one for number, one in seen.items() if number not in borders]
        self.types = Counter(type(one).__qualname__ for one in objects)
        containers: list[Any] = [one for one in objects if isinstance(one, _CONTAINERS)]
        self.containers = {id(one): (one, len(one)) for one in containers}

    def grown_over(self, most: int, *, since: Held) -> list[str]:
        """Return what is longer than `most` and has grown since another look, each with its length and an entry."""
        found: list[str] = []
        for number, (container, length) in self.containers.items():
            _, before = since.containers.get(number, (None, 0))
            if length > max(most, before):
                found.append(f"{type(container).__name__} of {length}, was {before}: {_beginning(container)}")
        return found

    def more_of(self, *, since: Held, than: int) -> dict[str, tuple[int, int]]:
        """Return the types of which there are more than so many more than at another look, with both counts."""
        return {
            name: (since.types[name], count)
            for name, count in self.types.items()
            if count > since.types[name] + than and name not in _PLAIN
        }

    def _referents(self, one: object) -> list[object]:
        if isinstance(one, FunctionType):
            # Its globals are those of a module; what a closure keeps is its own.
            return [*(one.__closure__ or ()), *(one.__defaults__ or ()), one.__dict__]
        if isinstance(one, type):
            ours = one.__module__.partition(".")[0] == self._package
            return list(vars(one).values()) if ours else []
        return gc.get_referents(one)


def _beginning(container: Any) -> str:
    for entry in container:
        return repr(entry)[:80]
    return "empty"


@dataclass(frozen=True)
class Sample:
    """A process at one moment.

    Attributes:
        requests: How many it has served.
        seconds: The monotonic time.
        memory: Bytes, however they were measured.
        tasks: Tasks of the running event loop.
        sockets: Open files and sockets.
    """

    requests: int
    seconds: float
    memory: int
    tasks: int
    sockets: int


def sample(requests: int, *, memory: int | None = None) -> Sample:
    """Look at the process; `memory` is its resident memory (Linux) if not given."""
    gc.collect()
    if memory is None:
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    sockets = sum(1 for _ in Path("/dev/fd").iterdir())
    return Sample(requests, time.monotonic(), memory, len(asyncio.all_tasks()), sockets)


def slope(samples: list[Sample]) -> float:
    """Return the bytes by which memory grew with each request, by least squares over the last half of the samples."""
    half = samples[len(samples) // 2 :]
    mean_requests = sum(one.requests for one in half) / len(half)
    mean_memory = sum(one.memory for one in half) / len(half)
    above = sum((one.requests - mean_requests) * (one.memory - mean_memory) for one in half)
    return above / sum((one.requests - mean_requests) ** 2 for one in half)
