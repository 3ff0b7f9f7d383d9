"""Machine instructions of a request under uvicorn, with and without the middleware, counted by valgrind's callgrind.

A count does not depend on how busy the machine is, so it shows differences of 1 %, which the throughput cannot.
Each server runs twice, for few and for many requests: the difference leaves out its start and its shutdown.

Run as a program, this module is one of these servers: `python -m tests.benchmarks.instructions KIND`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Final

import uvicorn

from tests.benchmarks.loading import loaded
from tests.benchmarks.rows import Figure, Plan, Row
from tests.benchmarks.served import REQUEST
from tests.benchmarks.serving import BARE, LEAST, OURS, STARLETTE, application, listening
from tests.processes import ROOT

GOAL: Final = 1.03
WARM_UP, REQUESTS = 100, 1000
KINDS: Final = (BARE, OURS, LEAST, STARLETTE)
_TOTAL: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


async def run(plan: Plan) -> list[Row]:
    """Count the instructions of each application. Without valgrind, skip the benchmark and say so."""
    if shutil.which("valgrind") is None:
        sys.stdout.write("instructions: skipped, because valgrind is not installed (apt-get install valgrind)\n")
        return []
    requests = max(200, plan.of(REQUESTS))
    counts = {kind: await per_request(kind, requests) for kind in KINDS}
    bare = counts[BARE]
    ratio = counts[OURS] / bare
    peers = {kind: Figure((counts[kind] / bare,)) for kind in (LEAST, STARLETTE)}
    return [
        Row(
            "machine instructions of a request under uvicorn, relative to one without",
            "",
            Figure((ratio,)),
            peers,
            goal=f"<= {GOAL}",
            met=ratio <= 1 + (GOAL - 1) * plan.slack,
            notes=(f"without middleware: {bare:,.0f}, with tokenmw: {counts[OURS]:,.0f} ({requests} requests)",),
        )
    ]


async def per_request(kind: str, requests: int) -> float:
    """Return the instructions of one warm request."""
    few, many = await asyncio.gather(counted(kind, WARM_UP), counted(kind, WARM_UP + requests))
    return (many - few) / requests


async def counted(kind: str, requests: int) -> int:
    """Return the instructions of a server that starts, answers `requests` requests, and stops."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory, "callgrind.out")
        valgrind = ("valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={result}")
        server = await asyncio.create_subprocess_exec(
            *valgrind,
            sys.executable,
            "-m",
            __name__,
            kind,
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)},
        )
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            await loaded(int(await server.stdout.readline()), REQUEST, count=requests, connections=1)
            server.stdin.close()
            await server.wait()
        finally:
            if server.returncode is None:
                server.kill()
                await server.wait()
        return _total(result)


def _total(result: Path) -> int:
    return int(_TOTAL.findall(result.read_text())[-1])


async def _serve(kind: str) -> None:
    """Serve until stdin closes."""
    listener = listening(0)
    server = uvicorn.Server(uvicorn.Config(await application(kind), lifespan="off", log_config=None, access_log=False))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()

    def stop() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            server.should_exit = True

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop)
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
