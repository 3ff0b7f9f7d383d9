"""Warm operations cost at most a tenth more than recorded: counted in instructions, which no other load changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.benchmarks.steps import PYTHON, RECORD, TENTH, counts, recorded
from tests.benchmarks.tracing import Count, count
from tokenmw import APIKeySource

FIX = "if this is intended, record it with `python -m tests.benchmarks steps --record` on each Python"


@pytest.mark.skipif(recorded() is None, reason=f"nothing is recorded for Python {PYTHON}")
async def test_no_warm_operation_costs_a_tenth_more_than_recorded() -> None:
    """A tenth more instructions or calls is a fault; fewer are not."""
    before, now = recorded(), await counts()
    assert before is not None
    assert before.keys() == now.keys(), FIX
    differing: dict[str, tuple[Count, Count]] = {}
    for name, found in now.items():
        if any(found[kind] - before[name][kind] > TENTH * before[name][kind] for kind in found):
            differing[name] = (before[name], found)
    assert {} == differing, f"recorded and now: {differing}; {FIX}"


async def test_the_counts_are_the_same_each_time() -> None:
    """What the interpreter has specialised by then makes no difference."""
    assert await counts() == await counts()


def test_a_tenth_more_is_seen() -> None:
    """One call of ours more, one instruction of ours more: each is in the counts."""
    source = APIKeySource()
    scope: dict[str, Any] = {"type": "http", "headers": [(b"host", b"service.example"), (b"x-api-key", b"k")]}
    once = count(lambda: source.find(scope))
    twice = count(lambda: (source.find(scope), source.find(scope)))
    assert once["steps"] > 0 < once["calls"]
    assert {kind: 2 * number for kind, number in once.items()} == twice
    scope["headers"] *= 2
    assert count(lambda: source.find(scope))["steps"] > 1.1 * once["steps"]


def test_the_tests_own_code_is_not_counted() -> None:
    """Nor is what other libraries do inside of their functions, which changes with their releases."""
    assert {"steps": 0, "calls": 0} == count(lambda: json.dumps({"a": [1, 2, 3]}))


def test_each_supported_python_has_its_record() -> None:
    """The instructions of one version are not those of another."""
    assert {"3.11", "3.12", "3.13"} <= json.loads(RECORD.read_text()).keys()
