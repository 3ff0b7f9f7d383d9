"""Hostile requests leave memory bounded, and known callers keep their ids and are served beside them.

The campaign sends them for one second; `-m soak` for a minute, ten thousand a second as far as the machine can, and
prints what was reached. No time is asserted: other work of the machine makes them longer.
"""

from __future__ import annotations

import faulthandler
import gc
import sys
import tracemalloc

import pytest

from tests.servers import RedisServer
from tests.soak.hostile import Hostile
from tests.soak.reachable import sample
from tokenmw import Limits

PATIENT = 5.0  # seconds for a command: the machine may be slow
RATE, SECONDS = 10_000.0, 60.0
RESIDENT_BOUND = 60e6  # bytes: full caches of both brokers, a hundred thousand sessions and ten thousand refused keys
STEADY_BOUND = 10e6  # bytes: what they grow by in the last third of the minute, when they have long been full
SMALL = Limits(sessions=1_000, touches=1_000, refused_keys=300, command_seconds=PATIENT)
TRACED_BOUND = 3e6  # bytes: full caches, and what is allocated for the requests in progress


@pytest.mark.campaign
async def test_hostile_requests_leave_memory_bounded(private_redis: RedisServer) -> None:
    """Whatever is sent, memory is what small bounds allow, and each known caller has its id."""
    async with Hostile(private_redis.url, limits=SMALL) as callers:
        await callers.send(rate=1_000, seconds=0.5)  # opens the connections
        tracemalloc.start()
        try:
            before = _allocated()
            figures = await callers.send(rate=1_000, seconds=1.0)
            grown = _allocated() - before
        finally:
            tracemalloc.stop()
    assert {204, 401} == figures.statuses.keys() - {0}
    assert 0 == figures.wrong
    assert len(figures.cold) >= 15
    assert grown < TRACED_BOUND


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
async def test_a_minute_of_hostile_requests(private_redis: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Resident memory grows by full caches and then no more, and known callers keep their ids."""
    faulthandler.cancel_dump_traceback_later()  # it takes longer than a test may hang
    async with Hostile(private_redis.url, limits=Limits(command_seconds=PATIENT)) as callers:
        await callers.send(rate=1_000, seconds=1.0)
        before = sample(0)
        figures = await callers.send(rate=RATE, seconds=SECONDS)
        after = sample(0)
        stored = private_redis.command("DBSIZE")
    with capsys.disabled():
        lines = [
            *figures.lines(),
            f"resident memory +{(after.memory - before.memory) / 1e6:.1f} MB, {stored} keys in Redis",
        ]
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert {204, 401} == figures.statuses.keys() - {0}
    assert RATE * SECONDS == pytest.approx(figures.statuses.total(), rel=0.01)  # offered
    assert 0 == figures.wrong
    assert after.memory - before.memory < RESIDENT_BOUND
    assert figures.grown < STEADY_BOUND
    assert after.tasks <= before.tasks  # none is left; one that opened a connection may be over


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
