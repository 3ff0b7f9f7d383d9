"""Workers that a server has forked after it made the observer, as gunicorn does with `preload_app`."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from tokenmw import TokenBroker
from tokenmw.observe import SharedStateChanged
from tokenmw.observe.prometheus import PrometheusObserver

observer = PrometheusObserver()
broker = TokenBroker({}, observers=[observer])


async def serve(*, up: bool) -> None:
    """Serve until killed."""
    async with broker:
        observer(SharedStateChanged(up=up))
        await asyncio.sleep(60)


def fork(*, up: bool) -> int:
    """Fork a worker, and return its process id."""
    pid = os.fork()
    if not pid:
        asyncio.run(serve(up=up))
        os._exit(0)
    return pid


def up() -> str:
    """Return what all workers report together."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    try:
        lines = generate_latest(registry).decode().splitlines()
    except struct.error:  # prometheus_client cannot read a file that a worker has created but not yet sized
        return "nothing"
    return next((line for line in lines if line.startswith("tokenmw_shared_up ")), "nothing")


def wait_for(line: str) -> None:
    """Wait until all workers report this together."""
    until = time.monotonic() + 20
    while up() != line and time.monotonic() < until:
        time.sleep(0.1)
    sys.stdout.write(f"{up()}\n")


if __name__ == "__main__":
    alive = fork(up=True)
    wait_for("tokenmw_shared_up 1.0")
    dead = fork(up=False)
    wait_for("tokenmw_shared_up 0.0")
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
    wait_for("tokenmw_shared_up 1.0")
    os.kill(alive, signal.SIGKILL)
    os.waitpid(alive, 0)
