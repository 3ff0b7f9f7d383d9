"""Apply each mutation to a copy of the tree, and check that a test fails.

    python -m tests.mutations            # all
    python -m tests.mutations lease      # those whose names contain this text
    python -m tests.mutations --list

The tests named for a mutation must pass without it, and at least one must fail with it. The exit code is not zero if a
mutation was not noticed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutations.mutation import Mutation
from tests.mutations.running import check_tests_pass, copy_tree, run, text_to_replace
from tests.mutations.table import MUTATIONS


def main() -> int:
    """Run the selected mutations."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument("words", nargs="*", help="run only mutations whose names contain one of these texts")
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="mutations at the same time, each in a copy of its own")
    arguments = parser.parse_args()
    words: list[str] = arguments.words
    chosen = [one for one in MUTATIONS if not words or any(word in one.name for word in words)]
    if arguments.list:
        print("\n".join(one.name for one in chosen))
        return 0
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="tokenmw-mutations-") as directory:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.jobs):
            trees.put(copy_tree(Path(directory) / str(number)))
        tree = trees.get()
        for one in chosen:
            text_to_replace(tree, one)  # so that a mismatch is reported before any test is run
        check_tests_pass(tree, chosen)
        trees.put(tree)

        def check(one: Mutation) -> None:
            tree, began = trees.get(), time.monotonic()
            try:
                noticed = run(tree, one)
            finally:
                trees.put(tree)
            print(f"{noticed or 'NOT NOTICED':<60} {time.monotonic() - began:5.1f} s  {one.name}", flush=True)
            if not noticed:
                missed.append(one.name)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(check, chosen))  # raises what a check raises
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mutations were noticed.")
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
