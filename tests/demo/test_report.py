"""The verdict on the answers: every way in which they can be wrong is seen."""

from __future__ import annotations

import pytest

from tokenmw.demo.report import Answer, faults, table, verdict

KEYS = ("alice", "bob")
GOOD = [
    Answer("alice", 1, "id-a", "…token1", 120),
    Answer("alice", 1, "id-a", "…token1", 119),
    Answer("alice", 2, "id-a", "…token1", 120),
    Answer("bob", 1, "id-b", "…token1", 120),
    Answer("bob", 2, "id-b", "…token1", 120),
]


def found(answers: list[Answer], *, fetches: int = 1) -> list[str]:
    """Judge answers of two keys and two workers."""
    return faults(answers, api_keys=KEYS, workers=2, fetches=fetches)


def test_good_answers_have_no_fault() -> None:
    """One id for each key, one token, one fetch: all is well."""
    assert found(GOOD) == []
    assert verdict(GOOD, []).startswith("All is well")


@pytest.mark.parametrize(
    ("answers", "fetches", "fault"),
    [
        ([*GOOD, Answer("bob", 2, "id-c", "…token1", 120)], 1, "bob has 2 session ids and not one."),
        (
            [answer._replace(session_id="id-a") for answer in GOOD],
            1,
            "alice and bob have the same session id.",
        ),
        ([*GOOD, Answer("bob", 2, "id-b", "…token2", 120)], 1, "The workers use 2 different tokens."),
        (GOOD, 2, "The token was fetched 2 times and not once."),
        (GOOD, 0, "The token was fetched 0 times and not once."),
        (GOOD[:-1], 1, "Worker 2 has not answered bob."),
    ],
)
def test_each_fault_is_named(answers: list[Answer], fetches: int, fault: str) -> None:
    """A fault is one sentence, and it is in the report."""
    assert found(answers, fetches=fetches) == [fault]
    assert f"- {fault}" in verdict(answers, [fault])


def test_no_answers_at_all_are_a_fault() -> None:
    """Nothing that is wrong is not enough."""
    assert len(found([])) == 4


def test_the_table_has_a_line_for_each_key_and_worker() -> None:
    """Answers that tell the same are one line, those that do not are two."""
    assert sum(line.startswith("alice") for line in table(GOOD, fetches=1).splitlines()) == 2
    wrong = [*GOOD, Answer("alice", 2, "id-x", "…token1", 120)]
    lines = table(wrong, fetches=7).splitlines()
    assert sum(line.startswith("alice") for line in lines) == 3
    assert lines[-1].endswith(": 7")
