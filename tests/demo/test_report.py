"""The report on the answers: every fault is found."""

from __future__ import annotations

import pytest

from tokenmw.demo.report import Answer, faults, table

GOOD = [
    Answer("alice", 1, "id-a", "…token1", 120),
    Answer("alice", 1, "id-a", "…token1", 119),
    Answer("alice", 2, "id-a", "…token1", 120),
    Answer("bob", 1, "id-b", "…token1", 120),
    Answer("bob", 2, "id-b", "…token1", 120),
]


def test_good_answers_have_no_fault() -> None:
    """One id for each key, one token and one fetch are no fault."""
    assert faults(GOOD, fetches=1) == []


@pytest.mark.parametrize(
    ("answers", "fetches", "fault"),
    [
        ([*GOOD, Answer("bob", 2, "id-c", "…token1", 120)], 1, "bob has 2 session ids, not one."),
        ([answer._replace(session_id="id-a") for answer in GOOD], 1, "alice and bob have the same session id."),
        ([*GOOD, Answer("bob", 2, "id-b", "…token2", 120)], 1, "The workers use 2 tokens, not one."),
        ([], 1, "The workers use 0 tokens, not one."),
        (GOOD, 2, "The token was fetched 2 times, not once."),
        (GOOD, 0, "The token was fetched 0 times, not once."),
    ],
)
def test_each_fault_is_named(answers: list[Answer], fetches: int, fault: str) -> None:
    """A fault is one sentence."""
    assert faults(answers, fetches=fetches) == [fault]


def test_the_table_has_a_line_for_each_key_and_worker() -> None:
    """Equal answers are one line, different ones are two."""
    assert sum(line.startswith("alice") for line in table(GOOD, fetches=1).splitlines()) == 2
    different = [*GOOD, Answer("alice", 2, "id-x", "…token1", 120)]
    lines = table(different, fetches=7).splitlines()
    assert sum(line.startswith("alice") for line in lines) == 3
    assert lines[-1].endswith(": 7")
