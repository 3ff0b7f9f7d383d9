"""A worker process that writes Prometheus metrics in multiprocess mode; a test kills it."""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from tokenmw import TokenBroker
from tokenmw.observe import SharedStateChanged
from tokenmw.observe.prometheus import PrometheusObserver


async def main(*, up: bool, seconds: float) -> None:
    """Report that Redis is in use, or not, and after some seconds print what all processes report."""
    observer = PrometheusObserver()
    async with TokenBroker({}, observers=[observer]):
        observer(SharedStateChanged(up=up))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.sleep(seconds)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    sys.stdout.write(generate_latest(registry).decode())


if __name__ == "__main__":
    asyncio.run(main(up=sys.argv[1] == "up", seconds=float(sys.argv[2])))
