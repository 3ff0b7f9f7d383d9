"""Housekeeping compares tokens in batches: a failed comparison does not prevent the others."""

from __future__ import annotations

from typing import Any

import pytest

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.housekeeping import Recovery, RedisJobs
from tokenmw.redis.errors import RedisUnavailable

ENTRIES = [f"entry {number}" for number in range(40)]


class Parts:
    """Stands for the cache, the connection and both sides of tokens; it records what is compared and refreshed."""

    usable = settled = True

    def __init__(self, results: dict[str, BaseException | bool]) -> None:
        self._results = results
        self.compared: list[str] = []
        self.refreshed: list[str] = []

    def __iter__(self) -> Any:
        return iter(ENTRIES)

    def is_due(self, _entry: str, _now: float, *, announced: bool) -> bool:
        """Return that every entry is due."""
        return True

    async def changed(self, entries: list[str]) -> list[str]:
        """Return that every entry has changed."""
        return entries

    async def compare(self, entry: str) -> bool:
        """Return or raise the result of an entry."""
        self.compared.append(entry)
        result = self._results.get(entry, False)
        if isinstance(result, BaseException):
            raise result
        return result

    def refresh_soon(self, entry: str) -> None:
        """Record the entry."""
        self.refreshed.append(entry)


def jobs_of(parts: Any) -> RedisJobs:
    """Make the jobs over these parts."""
    return RedisJobs(
        parts,
        epochs=parts,
        recovery=Recovery(SYSTEM_CLOCK),
        cache=parts,
        tokens=parts,
        token_sync=parts,
        session_sync=parts,
        clock=SYSTEM_CLOCK,
    )


async def test_an_unavailable_server_does_not_stop_the_comparison() -> None:
    """One member of the first batch fails, as on one server of a cluster: all batches are compared."""
    parts = Parts({ENTRIES[3]: RedisUnavailable("timeout")})
    await jobs_of(parts).compare_tokens()
    assert sorted(ENTRIES) == sorted(parts.compared)


async def test_without_any_usable_server_the_comparison_stops() -> None:
    """The failure is raised after the first batch."""
    parts = Parts(dict.fromkeys(ENTRIES, RedisUnavailable("timeout")))
    jobs = jobs_of(parts)

    async def fail(entry: str) -> bool:
        parts.usable = False
        return await Parts.compare(parts, entry)

    parts.compare = fail  # type: ignore[method-assign]
    with pytest.raises(RedisUnavailable):
        await jobs.compare_tokens()
    assert 16 == len(parts.compared)


async def test_an_entry_that_lost_its_token_is_refreshed_although_another_one_fails() -> None:
    """The unexpected exception is raised after the refresh has been started."""
    results: dict[str, BaseException | bool] = {**dict.fromkeys(ENTRIES, True), ENTRIES[0]: LookupError("a bug")}
    parts = Parts(results)
    with pytest.raises(LookupError):
        await jobs_of(parts).compare_tokens()
    assert {*parts.compared} - {ENTRIES[0]} == {*parts.refreshed}
    assert parts.refreshed
