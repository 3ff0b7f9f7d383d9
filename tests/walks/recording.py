"""A profile hook that records which files of the package run, and the calls that lead from one file into another."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import redis

import tokenmw

__all__ = ["Call", "Recorder", "Walk"]

PACKAGE = f"{Path(tokenmw.__file__).parent}/"
REDIS_PY = f"{Path(redis.__file__).parent}/"
# Servers and clocks for tests, and the demo: they run in this process, but a request of a service does not pass them.
NOT_COUNTED = ("testing/", "demo/")


@dataclass(frozen=True)
class Call:
    """One call of a function of the package.

    Attributes:
        file: The function's file, relative to the package.
        caller: The file of the nearest function of the package up the stack: the call is direct, or a library is in
            between. None where there is none, as at the start of a task.
        is_coroutine: Whether the function is a coroutine function or an async generator.
        in_new_task: Whether it runs in a task that did not exist when the recording began, or in the recording one.
    """

    file: str
    caller: str | None
    is_coroutine: bool
    in_new_task: bool


@dataclass(frozen=True)
class Walk:
    """What is counted of a sequence of calls.

    Attributes:
        files: Every file in which code of the package ran, in order of its first call.
        awaited: Those of them in which a coroutine ran: the files through which the request itself is passed on.
        moves: The number of calls from one file into another.
    """

    files: tuple[str, ...]
    awaited: tuple[str, ...]
    moves: int

    @classmethod
    def of(cls, calls: Sequence[Call]) -> Walk:
        """Count the calls."""
        files = tuple(dict.fromkeys(call.file for call in calls))
        awaited = {call.file for call in calls if call.is_coroutine}
        moves = sum(call.caller is not None and call.caller != call.file for call in calls)
        return cls(files, tuple(file for file in files if file in awaited), moves)


class Recorder:
    """Records calls in the running event loop while `recording` is entered.

    The hook sees one thread, and all tasks of the event loop run in it. A coroutine is counted when it starts, and not
    again each time it is resumed.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.left_redis_py = 0
        """How many calls had been recorded when a function of redis-py returned last."""
        self._files: dict[CodeType, str] = {}
        self._frames: dict[int, FrameType] = {}  # kept, since the id of a frame that was freed is given to another
        self._older_tasks: set[asyncio.Task[Any]] = set()

    @property
    def position(self) -> int:
        """How many calls have been recorded: the place of a mark between two calls."""
        return len(self.calls)

    @contextmanager
    def recording(self) -> Generator[None]:
        """Record all calls."""
        self._older_tasks = asyncio.all_tasks() - {asyncio.current_task()}
        before = sys.getprofile()
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(before)
            self._frames.clear()

    def walk(self, start: int = 0, end: int | None = None) -> Walk:
        """Count the calls between two positions, without those of tasks that are older than the recording."""
        return Walk.of([call for call in self.calls[start:end] if call.in_new_task])

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "return":
            if frame.f_code.co_filename.startswith(REDIS_PY):
                self.left_redis_py = len(self.calls)
            return
        if event != "call" or not (file := self._file(frame.f_code)) or id(frame) in self._frames:
            return
        self._frames[id(frame)] = frame
        caller, above = "", frame.f_back
        while above is not None and not (caller := self._file(above.f_code)):
            above = above.f_back
        is_coroutine = bool(frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR))
        task = asyncio.current_task()
        # A heartbeat is written in the background, at a time that depends on chance.
        in_new_task = task not in self._older_tasks and (task is None or task.get_name() != "tokenmw heartbeats")
        self.calls.append(Call(file, caller or None, is_coroutine, in_new_task))

    def _file(self, code: CodeType) -> str:
        if (known := self._files.get(code)) is not None:
            return known
        path = code.co_filename
        file = path.removeprefix(PACKAGE) if path.startswith(PACKAGE) else ""
        self._files[code] = file = "" if file.startswith(NOT_COUNTED) else file
        return file
