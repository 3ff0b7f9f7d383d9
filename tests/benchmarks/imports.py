"""The cost of `import tokenmw` beside its hard dependencies, in processor time of a new interpreter."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

from tests.benchmarks.rows import Plan, Row, interleaved

OURS = "import tokenmw"
THEIRS = "import anyio, cachetools, httpx, redis.asyncio, starlette.applications"
GOAL = 1.2
MEASURE = "import time; began = time.process_time(); {}; print((time.process_time() - began) * 1000)"


async def run(plan: Plan) -> list[Row]:
    """Import the package and its dependencies alternately."""
    with tempfile.TemporaryDirectory() as compiled:
        # pip compiles what it installs, but not a source tree. Compile both, so that only imports are measured.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        await milliseconds(OURS, environment)
        await milliseconds(THEIRS, environment)
        contestants = {
            "ours": lambda: milliseconds(OURS, environment),
            "theirs": lambda: milliseconds(THEIRS, environment),
        }
        figures = await interleaved(contestants, rounds=plan.rounds)
    ours, theirs = figures["ours"], figures["theirs"]
    met = ours.median <= plan.slack * GOAL * theirs.median
    return [Row(OURS, "ms", ours, {"its hard dependencies": theirs}, goal=f"<= {GOAL} of its dependencies", met=met)]


async def milliseconds(statement: str, environment: dict[str, str]) -> float:
    """Return the milliseconds of a statement in a new interpreter."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURE.format(statement), stdout=asyncio.subprocess.PIPE, env=environment
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return float(output)
