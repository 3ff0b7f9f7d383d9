"""Memory stays flat in a million requests of all kinds, and in two million with keys and tenants that change.

What is measured, and the smallest leak that is noticed:

- `tracemalloc` counts each byte. The rarest kind of request is one in fifty, and the smallest leak is an entry of a
  container, about a hundred bytes. That is two bytes for each request, and the bound is half of it.
- Resident memory includes what C libraries keep. It varies by some MB with the allocator and the requests in progress,
  so over half a million requests the bound is sixteen bytes.
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
from tests.soak.load import CONCURRENCY
from tests.soak.reachable import ReachableObjects, Sample, sample, slope
from tokenmw import Limits
from tokenmw.observe.throttle import LOGGER
from tokenmw.testing import ManualClock

pytestmark = pytest.mark.soak

SAMPLES = 20
TRACED_BOUND, RESIDENT_BOUND = 1.0, 16.0  # bytes for each request
# The test's clock is faster than the real one, and its server may be slow; these tests are not about deadlines.
LONG_DEADLINES = Limits(command_seconds=5.0, fetch_seconds=60.0, lease_seconds=70.0, wait_seconds=140.0)

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


@pytest.fixture(autouse=True)
def _no_timeout() -> None:
    # pytest's timeout for hanging tests was set before this fixture, and these tests take longer.
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _no_log_records() -> Iterator[None]:
    # pytest keeps each log record until the end of the test, which would look like a leak.
    def dropped(_record: logging.LogRecord) -> bool:
        return False

    LOGGER.addFilter(dropped)
    yield
    LOGGER.removeFilter(dropped)


class PrintedSamples:
    """The samples of a run, each printed when it is taken, past pytest's capture."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self.taken: list[Sample] = []
        self._print = print_line

    def take(self, one: Sample) -> None:
        """Keep and print a sample."""
        self.taken.append(one)
        self._print(f"{one.requests:9} requests {one.memory / 1e6:8.2f} MB, {one.tasks} tasks, {one.sockets} files")

    def slope(self) -> float:
        """Print the rate, and return the bytes per request over the last half of the samples."""
        first, last, found = self.taken[0], self.taken[-1], slope(self.taken)
        rate = (last.requests - first.requests) / (last.seconds - first.seconds)
        self._print(f"{rate:.0f} requests/s, {found:+.3f} bytes a request over the last half")
        return found


@pytest.fixture
def samples(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> PrintedSamples:
    """Return the samples of this test, which are printed."""

    def print_line(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    print_line(f"\n{request.node.name}")
    return PrintedSamples(print_line)


@needs_proc
async def test_a_million_requests_leave_memory_flat(private_redis: RedisServer, samples: PrintedSamples) -> None:
    """Distinct keys and tenants, each failure of a provider and rejected tokens keep resident memory flat."""
    async with Flood(private_redis.url, limits=LONG_DEADLINES, step=0.002, regulars=2_000) as flood:
        samples.take(sample(0))
        snapshots: list[ReachableObjects] = []
        most: Counter[str] = Counter()
        for number in range(SAMPLES):
            await flood.send(1_000_000 // SAMPLES)
            samples.take(sample(flood.served))
            most |= Counter(flood.sizes())
            if number + 1 in (2 * SAMPLES // 5, SAMPLES):
                await flood.wait_until_shared()
                snapshots.append(ReachableObjects(flood.roots, package="tokenmw", outside=flood.outside))
    bounds = asdict(LONG_DEADLINES)
    assert {name: bounds[name] for name in ("sessions", "tokens", "rejected")}.items() <= most.items()
    assert all(count <= bounds[name] for name, count in most.items())
    early, late = snapshots
    assert [] == late.grown_over(LONG_DEADLINES.sessions, since=early)
    assert {} == late.more_of(since=early, than=5_000)
    assert samples.taken[-1].tasks <= samples.taken[SAMPLES // 2].tasks + CONCURRENCY
    assert samples.taken[-1].sockets <= samples.taken[SAMPLES // 2].sockets + 2 * (
        CONCURRENCY + LONG_DEADLINES.connections
    )
    assert samples.slope() <= RESIDENT_BOUND


async def test_each_byte_is_freed(private_redis: RedisServer, samples: PrintedSamples) -> None:
    """The same requests with every allocation counted, and bounds that are reached in the first tenth."""
    limits = Limits(
        **(asdict(LONG_DEADLINES) | {"sessions": 5_000, "tokens": 500, "rejected": 300, "refused_keys": 200})
    )
    tracemalloc.start()
    try:
        async with Flood(private_redis.url, limits=limits, step=0.005, regulars=400) as flood:
            for _ in range(SAMPLES):
                await flood.send(1_000_000 // SAMPLES)
                await flood.wait_until_shared()
                gc.collect()
                samples.take(sample(flood.served, memory=_allocated()))
    finally:
        tracemalloc.stop()
    assert samples.slope() <= TRACED_BOUND


def _allocated() -> int:
    # Without the test's clock, which keeps an entry for each cancelled sleeper until its time; their number varies.
    clocks = tracemalloc.Filter(inclusive=False, filename_pattern=inspect.getfile(ManualClock))
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([clocks]).traces)


@needs_proc
async def test_two_million_requests_with_changing_callers_leave_memory_flat(
    private_redis: RedisServer, samples: PrintedSamples
) -> None:
    """Keys become idle and are used again, secrets are rotated, tokens expire, and Redis is lost six times.

    Very few requests fail: a frozen server runs its commands when it is thawed, so a lease may have no holder any more,
    and it expires in real time, which is slower than the test's clock.
    """
    async with Churn(private_redis.url, limits=LONG_DEADLINES) as churn:
        samples.take(sample(0))
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
            await churn.wait_until_shared()
            samples.take(sample(churn.served))
        sizes = churn.sizes()
    assert churn.statuses.keys() <= {204, 503}
    assert churn.statuses[503] <= churn.served / 1_000
    assert all(count <= asdict(LONG_DEADLINES)[name] for name, count in sizes.items())
    assert samples.taken[-1].tasks <= samples.taken[SAMPLES].tasks + CONCURRENCY
    assert samples.slope() <= RESIDENT_BOUND
