"""Applies one mutation to a copy of the tree and runs its tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.mutations.mutation import Mutation

__all__ = ["check_tests_pass", "copy_tree", "run", "text_to_replace"]

ROOT = Path(__file__).parents[2]
SECONDS = 180.0
"""The time limit of the tests of one mutation. Tests that hang because of a mutation have noticed it."""
_ALL_SECONDS = 900.0  # of the tests of all mutations together
_TESTS_FAILED = 1  # pytest's exit codes: 0 is passed, the others are interrupted, broken or not found
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "dist", "build", "node_modules")


def copy_tree(target: Path) -> Path:
    """Copy the tree without the files of tools."""
    shutil.copytree(ROOT, target, ignore=_LEFT_OUT)
    return target


def text_to_replace(tree: Path, mutation: Mutation) -> str:
    """Return the text of a mutation's file. Raises ValueError unless `old` is in it exactly once."""
    file = tree / mutation.file
    if not file.is_file():
        raise ValueError(f"{mutation.name}: there is no file {mutation.file}.")
    text = file.read_text(encoding="utf-8")
    if (found := text.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} has the text to replace {found} times: {mutation.old!r}")
    return text


def check_tests_pass(tree: Path, mutations: Iterable[Mutation]) -> None:
    """Run the tests of all mutations on the unchanged tree. Raises ValueError if one fails: it would prove nothing."""
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    if tests and (done := _pytest(tree, *tests, seconds=_ALL_SECONDS)).returncode != 0:
        raise ValueError(f"Without a mutation the tests fail:\n{done.stdout}{done.stderr}")


def run(tree: Path, mutation: Mutation) -> str:
    """Apply a mutation, run its tests and undo it. Return the name of the failed test; "" if none failed.

    Raises:
        ValueError: The text to replace was not found once, or the tests could not be run at all.
    """
    text = text_to_replace(tree, mutation)
    file = tree / mutation.file
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = _pytest(tree, *mutation.tests)
    except subprocess.TimeoutExpired:
        return "the tests hang"
    finally:
        file.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return ""
    if done.returncode != _TESTS_FAILED:
        raise ValueError(f"{mutation.name}: pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].rpartition("::")[2] if failed else "a test"


def _pytest(tree: Path, *tests: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    # No bytecode: Python would use it for a changed file that was written in the same second.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=line"]
    command += ["-m", "not soak and not compat", *tests]  # also those that the default run leaves out
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=seconds
    )
