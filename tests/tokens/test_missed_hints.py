"""What instances have missed while nothing was heard: compared by all of them, but not at the same moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.tokens.hints import TokenHints


class Entry:
    """Stands for an entry with a token."""

    current = True
    failure = None

    def __init__(self, number: int, *, used: bool) -> None:
        self.keys = self
        self.token = b"%d" % number
        self.used = used
        self.named, self.invalid_version = True, 0


class Parts:
    """Stands for the cache, the manager and the comparison of one instance; it records when each entry is compared.

    Attributes:
        compared: The loop's time and the entries of each batch.
        hinted: The loop's time of each check of a hint.
    """

    def __init__(self, count: int, *, used: int = 0, takes: float = 0.0) -> None:
        self._entries = {b"%d" % number: Entry(number, used=number < used) for number in range(count)}
        self._takes = takes
        self.compared: list[tuple[float, list[Entry]]] = []
        self.hinted: list[float] = []

    def __iter__(self) -> Any:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def of_key(self, key: bytes) -> Entry | None:
        """Return the entry of a key."""
        return self._entries.get(key)

    def read_soon(self, _entry: Entry) -> None:
        """Do nothing."""

    async def changed(self, entries: list[Entry], *, keep_used: bool) -> list[Entry]:
        """Return that no entry has changed."""
        assert keep_used
        self.compared.append((asyncio.get_running_loop().time(), entries))
        await asyncio.sleep(self._takes)
        return []

    async def check_hinted(self, _entries: list[Entry]) -> tuple[list[Entry], list[Entry], list[Entry]]:
        """Return that nothing has changed."""
        self.hinted.append(asyncio.get_running_loop().time())
        return [], [], []


def hints_of(parts: Any) -> TokenHints:
    """Make the hints of an instance."""
    return TokenHints(
        cache=parts,
        manager=parts,
        sync=parts,
        usable=lambda: True,
        on_invalidated=lambda: None,
        limits=Limits(),
        log=ThrottledLog(SYSTEM_CLOCK),
    )


async def run(instances: list[Parts], *, seconds: float, hint_after: float | None = None, every: float = 0.0) -> float:
    """Let instances miss hints at the same moment, or again `every` few moments. Return the time of the first loss."""
    loop = asyncio.get_running_loop()
    hints = [hints_of(parts) for parts in instances]
    tasks = [asyncio.create_task(one.run()) for one in hints]
    await asyncio.sleep(0)
    began = loop.time()
    for one in hints:
        one.add_all()
    if hint_after is not None:
        await asyncio.sleep(hint_after)
        for one in hints:
            one.add(b"0")
    while every and loop.time() < began + seconds:
        await asyncio.sleep(every)
        for one in hints:
            one.add_all()
    await asyncio.sleep(max(0.0, began + seconds - loop.time()))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return began


async def test_instances_start_at_different_times() -> None:
    """Of 200 instances that lose their connection together, fewer than a half begin within the same 100 ms."""
    loop = asyncio.get_running_loop()
    starts: list[float] = []
    for _ in range(200):
        hints = hints_of(Parts(300))
        hints.add_all()
        starts.append(hints._missed_at - loop.time())
    busiest = max(sum(start <= other < start + 0.1 for other in starts) for start in starts)
    assert busiest < 100


async def test_entries_that_requests_use_are_compared_first() -> None:
    """In random order, so that instances do not compare the same ones at the same time."""
    one, two = Parts(200, used=50), Parts(200, used=50)
    await run([one, two], seconds=1.2)
    first, second = ([entry for _, batch in parts.compared for entry in batch] for parts in (one, two))
    assert [True] * 50 + [False] * 150 == [entry.used for entry in first]
    assert [entry.token for entry in first[:50]] != [entry.token for entry in second[:50]]


async def test_a_slow_server_is_asked_more_rarely() -> None:
    """Between batches of 20 ms there are pauses of 40 to 120 ms."""
    parts = Parts(300, takes=0.02)
    await run([parts], seconds=2.5)
    times = [at for at, _ in parts.compared]
    assert 3 == len(times)  # of a hundred entries each
    assert min(times[1] - times[0], times[2] - times[1]) >= 0.055


async def test_a_hint_does_not_wait_for_what_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is checked while the comparison waits for its time."""
    monkeypatch.setattr("tokenmw.tokens.hints._LEAST_SPREAD", 100.0)
    monkeypatch.setattr("tokenmw.tokens.hints._MOST_SPREAD", 100.0)
    parts = Parts(10)
    began = await run([parts], seconds=0.3, hint_after=0.1)
    assert 1 == len(parts.hinted)
    assert parts.hinted[0] - began < 0.25


async def test_a_connection_that_is_lost_repeatedly_does_not_put_the_comparison_off() -> None:
    """The time of the first loss counts."""
    parts = Parts(100)
    began = await run([parts], seconds=0.8, every=0.05)
    assert parts.compared[0][0] - began < 0.7
