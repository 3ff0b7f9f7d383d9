"""Requests that arrive at a steady rate, as from a network: another process writes to a pipe when each one is due.

A timer of the event loop that serves them would be no measure: it fires up to a millisecond late while the loop is
idle, and it makes the requests wait for each other.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Arrivals"]

_TICK = 0.0005  # seconds between two groups of requests
_RECORD = struct.Struct("<dHH")  # when it was written, by the monotonic clock; hostile requests; known callers
_READ = _RECORD.size * 4096


class Arrivals:
    """Calls `arrive` when requests arrive, until `seconds` are over.

    Args:
        arrive: Gets the monotonic time at which requests were sent, and how many hostile ones and known callers.
        rate: Hostile requests a second.
        known: Requests of known callers a second.
        seconds: How long.
    """

    def __init__(self, arrive: Callable[[float, int, int], None], *, rate: float, known: float, seconds: float) -> None:
        self._arrive = arrive
        self._arguments = [str(number) for number in (rate, known, seconds)]

    async def run(self) -> None:
        """Start the process, and read until it has written everything."""
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        over: asyncio.Future[None] = loop.create_future()

        def read() -> None:
            records = os.read(reading, _READ)
            if not records:
                loop.remove_reader(reading)
                over.set_result(None)
            for sent, hostile, known in _RECORD.iter_unpack(records):
                self._arrive(sent, hostile, known)

        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", Path(__file__), *self._arguments, stdout=writing
            )
        finally:
            os.close(writing)
        loop.add_reader(reading, read)
        try:
            await over
            await process.wait()
        finally:
            loop.remove_reader(reading)
            os.close(reading)


def _write(rate: float, known_rate: float, seconds: float) -> None:
    began, hostile, known = time.monotonic(), 0, 0
    while (passed := time.monotonic() - began) < seconds:
        # What a late tick has missed is sent with it, as far as a record can say it.
        more, more_known = min(int(passed * rate) - hostile, 65_535), int(passed * known_rate) - known
        if more or more_known:
            os.write(1, _RECORD.pack(time.monotonic(), more, more_known))
        hostile, known = hostile + more, known + more_known
        time.sleep(_TICK)


if __name__ == "__main__":
    _write(*map(float, sys.argv[1:]))
