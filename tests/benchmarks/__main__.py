"""Run benchmarks: `python -m tests.benchmarks [NAME ...]`; `--help` lists the options."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.chart import chart
from tests.benchmarks.rows import FULL, SHORT, Plan, Row

NAMES = (
    "warm",
    "steps",
    "observed",
    "commands",
    "cold",
    "coldfleet",
    "first",
    "frozen",
    "served",
    "instructions",
    "keys",
    "construction",
    "dpop",
    "tenants",
    "imports",
    "cancelled",
    "expiries",
    "connections",
    "fleet",
    "hostile",
    "coherence",
    "healing",
)
IN_SHORT = ("warm", "observed", "commands", "first", "keys", "construction", "dpop", "imports", "cancelled")
OURS = ("tokenmw", "redis", "cachetools", "starlette", "uvicorn", "uvloop")
PEERS = ("cashews", "aiocache", "dogpile.cache", "Authlib", "httpx-auth", "msal")


def main() -> int:
    """Run the benchmarks, print their rows, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run: {', '.join(NAMES)}; default: all")
    parser.add_argument("--short", action="store_true", help="less work and twice the goals, as CI runs it")
    parser.add_argument("--uvloop", action="store_true", help="use uvloop's event loop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all rounds to FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw the row `warm request` to FILE")
    parser.add_argument(
        "--record", action="store_true", help="record the steps of this Python version, and run nothing else"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    if options.record:
        steps = importlib.import_module("tests.benchmarks.steps")
        steps.record(asyncio.run(steps.counts()))
        return 0
    if options.svg and "warm" not in (options.names or ["warm"]):
        parser.error("--svg draws the warm request, so `warm` must be among the names")
    plan = SHORT if options.short else FULL
    loops = importlib.import_module("uvloop").new_event_loop if options.uvloop else None
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    machine += ", uvloop" if options.uvloop else ""
    versions = ", ".join(filter(None, map(installed, OURS + PEERS)))
    print(f"{machine}; {versions}\nmedian and spread of interleaved rounds\n")
    rows: list[Row] = []
    for name in options.names or (IN_SHORT if options.short else NAMES):
        for row in run(name, plan, loops):
            rows.append(row)
            print("\n".join(row.lines()), flush=True)
    if options.json:
        record: dict[str, object] = {"machine": machine, "versions": versions, "rows": [row.record() for row in rows]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(chart(next(row for row in rows if row.name == "warm request"), machine=machine))
    return 1 if any(row.met is False for row in rows) else 0


def run(name: str, plan: Plan, loops: Callable[[], asyncio.AbstractEventLoop] | None) -> list[Row]:
    """Run one benchmark in an event loop of its own."""
    with asyncio.Runner(loop_factory=loops) as runner:
        rows: list[Row] = runner.run(importlib.import_module(f"tests.benchmarks.{name}").run(plan))
    return rows


def installed(name: str) -> str:
    """Return a distribution with its version, or "" if it is not installed."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
