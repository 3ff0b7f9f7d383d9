"""Memory stays flat: a million requests of everything, and two million with keys and tenants that come and go.

What is measured, and how small a leak is seen:

- `tracemalloc` counts each byte. The rarest kind of request is one in fifty; the smallest thing to keep of one is an
  entry of a container, about a hundred bytes. That is two bytes for each request, and half of it is the bound.
- Resident memory sees what C libraries keep, too, over all requests. It moves by some MB with the allocator and what
  is under way, so over half a million requests the bound is sixteen bytes.
"""

from __future__ import annotations

import faulthandler
import gc
import inspect
import logging
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest

from tests.servers import RedisServer
from tests.soak.churn import Churn
from tests.soak.flood import Flood
from tests.soak.held import Held, Sample, sample, slope
from tests.soak.load import SIDE_BY_SIDE
from tokenmw import Limits
from tokenmw.observe.throttle import LOGGER
from tokenmw.testing import ManualClock

pytestmark = pytest.mark.soak

SAMPLES = 20
TRACED_BOUND, RESIDENT_BOUND = 1.0, 16.0  # bytes for each request
# The test's clock is faster than the real one, and its server may be slow: no deadline is what is tested here.
PATIENT = Limits(command_seconds=5.0, fetch_seconds=60.0, lease_seconds=70.0, wait_seconds=140.0)

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


@pytest.fixture(autouse=True)
def _takes_its_time() -> None:
    # It does not hang: pytest's look at hanging tests was set up before this fixture.
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _lines_are_not_kept() -> Iterator[None]:
    # pytest keeps each record until the test has ended, and that grows; its handlers are at this logger, too.
    def dropped(_record: logging.LogRecord) -> bool:
        return False

    LOGGER.addFilter(dropped)
    yield
    LOGGER.removeFilter(dropped)


class Told:
    """The samples of a run, each told at once, past pytest's capture."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.samples: list[Sample] = []
        self._say = say

    def take(self, one: Sample) -> None:
        """Keep and tell a sample."""
        self.samples.append(one)
        self._say(f"{one.requests:9} requests {one.memory / 1e6:8.2f} MB, {one.tasks} tasks, {one.sockets} files")

    def slope(self) -> float:
        """Tell the rate, and return the bytes a request over the last half."""
        first, last, found = self.samples[0], self.samples[-1], slope(self.samples)
        rate = (last.requests - first.requests) / (last.seconds - first.seconds)
        self._say(f"{rate:.0f} requests/s, {found:+.3f} bytes a request over the last half")
        return found


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Told:
    """Return where samples go."""

    def say(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    say(f"\n{request.node.name}")
    return Told(say)


@needs_proc
async def test_a_million_requests_leave_memory_flat(private_redis: RedisServer, told: Told) -> None:
    """Distinct keys and tenants, providers that fail in each way, rejected values: default bounds, resident memory."""
    async with Flood(private_redis.url, limits=PATIENT, step=0.002, regulars=2_000) as flood:
        told.take(sample(0))
        looks: list[Held] = []
        most: Counter[str] = Counter()
        for number in range(SAMPLES):
            await flood.send(1_000_000 // SAMPLES)
            told.take(sample(flood.served))
            most |= Counter(flood.held())
            if number + 1 in (2 * SAMPLES // 5, SAMPLES):
                await flood.shared_again()
                looks.append(Held(flood.roots, package="tokenmw", outside=flood.outside))
    bounds = asdict(PATIENT)
    assert {name: bounds[name] for name in ("sessions", "tokens", "rejected")}.items() <= most.items()
    assert all(count <= bounds[name] for name, count in most.items())
    early, late = looks
    assert [] == late.grown_over(PATIENT.sessions, since=early)
    assert {} == late.more_of(since=early, than=5_000)
    assert told.samples[-1].tasks <= told.samples[SAMPLES // 2].tasks + SIDE_BY_SIDE
    assert told.samples[-1].sockets <= told.samples[SAMPLES // 2].sockets + 2 * (SIDE_BY_SIDE + PATIENT.connections)
    assert told.slope() <= RESIDENT_BOUND


async def test_each_byte_is_given_back(private_redis: RedisServer, told: Told) -> None:
    """The same with every allocation counted, and bounds that are reached in the first tenth."""
    limits = Limits(**(asdict(PATIENT) | {"sessions": 5_000, "tokens": 500, "rejected": 300, "refused_keys": 200}))
    tracemalloc.start()
    try:
        async with Flood(private_redis.url, limits=limits, step=0.005, regulars=400) as flood:
            for _ in range(SAMPLES):
                await flood.send(1_000_000 // SAMPLES)
                await flood.shared_again()
                gc.collect()
                told.take(sample(flood.served, memory=_allocated()))
    finally:
        tracemalloc.stop()
    assert told.slope() <= TRACED_BOUND


def _allocated() -> int:
    # Without the test's clock, which keeps the time of each sleeper that has left until it comes: they vary in number.
    clocks = tracemalloc.Filter(inclusive=False, filename_pattern=inspect.getfile(ManualClock))
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([clocks]).traces)


@needs_proc
async def test_two_million_requests_of_callers_who_come_and_go_leave_memory_flat(
    private_redis: RedisServer, told: Told
) -> None:
    """Keys go idle and come back, secrets are rotated, tokens expire, Redis is lost six times.

    All are served but for very few: what a frozen server is asked, it does when it is thawed, so a lease may be given
    to nobody, and Redis keeps it by real time, which is slower than the test's.
    """
    async with Churn(private_redis.url, limits=PATIENT) as churn:
        told.take(sample(0))
        for number in range(2 * SAMPLES):
            fault = {6: "killed", 11: "frozen", 17: "killed", 22: "frozen", 28: "killed", 33: "frozen"}.get(number)
            if fault == "killed":
                private_redis.kill()
            elif fault == "frozen":
                private_redis.freeze()
            await churn.send(25_000)
            if fault == "killed":
                private_redis.restart()
            elif fault == "frozen":
                private_redis.thaw()
            await churn.send(25_000)
            await churn.shared_again()
            told.take(sample(churn.served))
        held = churn.held()
    assert churn.statuses.keys() <= {204, 503}
    assert churn.statuses[503] <= churn.served / 1_000
    assert all(count <= asdict(PATIENT)[name] for name, count in held.items())
    assert told.samples[-1].tasks <= told.samples[SAMPLES].tasks + SIDE_BY_SIDE
    assert told.slope() <= RESIDENT_BOUND
