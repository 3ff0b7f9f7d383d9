"""Run all code that reads data from outside with unexpected inputs; see `--help`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Any

from tests.fuzz.engines import Finding, has_atheris, instrumented, run_guided, run_long_inputs, run_mutations

_PLAIN = "atheris is not installed: inputs are random mutations of the seeds, and are not guided to new branches."


def main() -> int:
    """Run the selected targets. Return 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="TARGET", help="a target, or the beginning of the names of several (all)"
    )
    parser.add_argument("--runs", type=int, default=10_000, metavar="N", help="inputs for each target (10000)")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="time limit for each target (none)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed makes the same inputs (1)")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="store inputs that reach new branches there")
    parser.add_argument("--plain", action="store_true", help="use random mutations although atheris is installed")
    options = parser.parse_args()
    plain = options.plain or not has_atheris()
    if plain:
        targets: dict[str, Any] = importlib.import_module("tests.fuzz.targets").TARGETS
    else:
        with instrumented():
            targets = importlib.import_module("tests.fuzz.targets").TARGETS
    chosen = [name for name in targets if not options.names or name.startswith(tuple(options.names))]
    if not chosen:
        parser.error(f"no such target; there are {', '.join(targets)}")
    print(_PLAIN if plain and not options.plain else f"{len(chosen)} targets, {options.runs} inputs each", flush=True)
    failed = 0
    for name in chosen:
        begin = time.monotonic()
        limits: dict[str, Any] = {"runs": options.runs, "seconds": options.seconds, "seed": options.seed}
        try:
            if plain:
                inputs = run_mutations(targets[name], **limits)
            else:
                corpus = None if options.corpus is None else options.corpus / name
                if corpus is not None:
                    corpus.mkdir(parents=True, exist_ok=True)
                inputs = run_guided(targets[name], **limits, corpus=corpus)
            slowest = run_long_inputs(targets[name])
        except Finding as finding:
            failed += 1
            print(f"{name}: FOUND\n{finding}\n", flush=True)
        else:
            print(f"{name}: {inputs} inputs, {time.monotonic() - begin:.1f} s, the longest {slowest:.2f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
