"""Warm operations need no more instructions than recorded. Counts, unlike times, are the same on a busy machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.benchmarks.steps import ALLOWED_GROWTH, PYTHON, RECORD, counts, recorded
from tests.benchmarks.tracing import Count, count
from tokenmw import APIKeySource

FIX = "if this is intended, record it with `python -m tests.benchmarks steps --record` on each Python"


@pytest.mark.skipif(recorded() is None, reason=f"nothing is recorded for Python {PYTHON}")
async def test_no_warm_operation_costs_a_tenth_more_than_recorded() -> None:
    """More than a tenth above the record fails; fewer instructions are fine."""
    before, found = recorded(), await counts()
    assert before is not None
    assert before.keys() == found.keys(), FIX
    worse: dict[str, tuple[Count, Count]] = {
        name: (before[name], one)
        for name, one in found.items()
        if any(one[kind] > ALLOWED_GROWTH * before[name][kind] for kind in one)
    }
    assert {} == worse, f"recorded and found: {worse}; {FIX}"


async def test_the_counts_are_the_same_each_time() -> None:
    """Two runs have equal counts: what the interpreter has specialised makes no difference."""
    assert await counts() == await counts()


def test_counts_grow_with_the_work() -> None:
    """Each additional call and instruction of the package's own code is counted."""
    source = APIKeySource()
    scope: dict[str, Any] = {"type": "http", "headers": [(b"host", b"service.example"), (b"x-api-key", b"k")]}
    once = count(lambda: source.find(scope))
    twice = count(lambda: (source.find(scope), source.find(scope)))
    assert once["steps"] > 0 < once["calls"]
    assert {kind: 2 * number for kind, number in once.items()} == twice
    scope["headers"] *= 2
    assert count(lambda: source.find(scope))["steps"] > 1.1 * once["steps"]


def test_foreign_code_is_not_counted() -> None:
    """Neither the tests' code counts nor the code of other libraries, which changes with their releases."""
    assert {"steps": 0, "calls": 0} == count(lambda: json.dumps({"a": [1, 2, 3]}))


def test_each_supported_python_has_its_record() -> None:
    """Python versions compile to different instructions, so each needs its own record."""
    assert {"3.11", "3.12", "3.13", "3.14", "3.15"} <= json.loads(RECORD.read_text()).keys()
