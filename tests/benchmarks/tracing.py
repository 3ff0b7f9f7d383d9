"""Counts the interpreter's instructions and calls, which are the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import cachetools

import tokenmw

__all__ = ["OURS", "Count", "count"]

# This package and its caches. The code of other libraries changes with their releases, so only calls to it count.
OURS = (str(Path(tokenmw.__file__).parent), str(Path(cachetools.__file__).parent))

Count = dict[str, int]


def count(operation: Callable[[], object]) -> Count:
    """Return the number of bytecode instructions that an operation runs in `OURS`, and of calls from there.

    Instructions are counted as compiled, so the interpreter's specialisation makes no difference. Calls are those of
    functions, methods and C functions; on Python 3.12 and later, also those of classes.
    """
    if sys.version_info >= (3, 12):
        return _monitored(operation)
    return {"steps": _traced(operation), "calls": _profiled(operation)}


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(OURS)


def _monitored(operation: Callable[[], object]) -> Count:
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009  types are checked for Python 3.11, which has none
    tool, events = monitoring.PROFILER_ID, monitoring.events
    found = {"steps": 0, "calls": 0}

    def stepped(code: CodeType, _offset: int) -> None:
        if _is_ours(code):
            found["steps"] += 1

    def called(code: CodeType, _offset: int, _callable: object, _argument: object) -> None:
        if _is_ours(code):
            found["calls"] += 1

    monitoring.use_tool_id(tool, __name__)
    monitoring.register_callback(tool, events.INSTRUCTION, stepped)
    monitoring.register_callback(tool, events.CALL, called)
    try:
        monitoring.set_events(tool, events.INSTRUCTION | events.CALL)
        operation()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, events.INSTRUCTION, None)
        monitoring.register_callback(tool, events.CALL, None)
        monitoring.free_tool_id(tool)
    return found


def _traced(operation: Callable[[], object]) -> int:
    steps = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal steps
        if event == "call":
            if not _is_ours(frame.f_code):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    finally:
        sys.settrace(before)
    return steps


def _profiled(operation: Callable[[], object]) -> int:
    calls = 0

    def profile(frame: Any, event: str, _argument: object) -> None:
        nonlocal calls
        caller = frame.f_back if event == "call" else frame if event == "c_call" else None
        calls += caller is not None and _is_ours(caller.f_code)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        operation()
    finally:
        sys.setprofile(before)
    return calls
