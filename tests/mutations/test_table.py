"""The table matches the tree. `python -m tests.mutations` checks in minutes that the tests notice each mutation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.running import ROOT, text_to_replace
from tests.mutations.table import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_applied(mutation: Mutation) -> None:
    """Its text is in its file exactly once, and the files of its tests exist."""
    assert mutation.old in text_to_replace(ROOT, mutation)
    assert mutation.old != mutation.new
    assert mutation.tests
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutation.tests)


def test_names_are_different() -> None:
    """Each mutation has its own name."""
    assert len(MUTATIONS) == len({mutation.name for mutation in MUTATIONS})


@pytest.mark.parametrize("text", ["", "a b a"])
def test_text_that_does_not_occur_once_is_refused(tmp_path: Path, text: str) -> None:
    """A text that is missing or occurs twice is refused: the mutation would change nothing or something else."""
    (tmp_path / "module.py").write_text(text)
    with pytest.raises(ValueError, match="times"):
        text_to_replace(tmp_path, Mutation(name="m", file="module.py", old="a", new="b", tests=()))
    with pytest.raises(ValueError, match="no file"):
        text_to_replace(tmp_path, Mutation(name="m", file="other.py", old="a", new="b", tests=()))
