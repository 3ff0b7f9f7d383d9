"""The table fits the tree; whether the tests notice each mutation takes minutes: `python -m tests.mutations`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.running import ROOT, text_to_replace
from tests.mutations.table import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_put_in(mutation: Mutation) -> None:
    """Its text is in its file exactly once, and the files of its tests exist."""
    assert mutation.old in text_to_replace(ROOT, mutation)
    assert mutation.old != mutation.new
    assert mutation.tests
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutation.tests)


def test_names_are_different() -> None:
    """A name that is reported says which one it was."""
    assert len(MUTATIONS) == len({mutation.name for mutation in MUTATIONS})


@pytest.mark.parametrize("text", ["", "a b a"])
def test_text_that_is_not_there_exactly_once_is_refused(tmp_path: Path, text: str) -> None:
    """A mutation that changes nothing, or something else, would prove nothing."""
    (tmp_path / "module.py").write_text(text)
    with pytest.raises(ValueError, match="times"):
        text_to_replace(tmp_path, Mutation(name="m", file="module.py", old="a", new="b", tests=()))
    with pytest.raises(ValueError, match="no file"):
        text_to_replace(tmp_path, Mutation(name="m", file="other.py", old="a", new="b", tests=()))
