"""A lease holder that dies, a takeover and a revocation of many tokens leave a line and an event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.tokens.instance import Instance, keys_of, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.providers import Endpoint, ScriptedProvider
from tokenmw.observe.events import CommitRefused, LeaseChanged, TokenInvalidated

if TYPE_CHECKING:
    import pytest

    from tokenmw.testing import ManualClock


async def elapse(clock: ManualClock, seconds: float) -> None:
    """Let time pass in steps that are shorter than any wait."""
    for _ in range(round(seconds / 0.02)):
        await clock.elapse(0.02)
        await settle()


async def test_a_dead_holder_is_logged_when_its_lease_is_taken_over(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """The holder was killed: its lease expires, and the process that waited says so."""
    store, provider = MemoryStore(MemoryRedis(clock)), ScriptedProvider(endpoint)
    await store.acquire(keys_of(provider), "a process that died", known=0, seconds=5.3)
    async with Instance(clock, store=store) as instance:
        task = asyncio.create_task(instance.manager.get(instance.entry(provider)))
        await elapse(clock, 6.0)
        assert "token-1" == (await task).value
    leases = [event.change for event in instance.events if isinstance(event, LeaseChanged)]
    assert ["busy", "taken_over"] == leases
    assert [
        "tokenmw: p: the process with the lease has stored neither a token nor a failure; took it over after 5.3 s"
    ] == caplog.messages


async def test_a_holder_that_ends_properly_is_no_takeover(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that is closed releases its lease."""
    store, provider = MemoryStore(MemoryRedis(clock)), ScriptedProvider(endpoint)
    lease = await store.acquire(keys_of(provider), "closing", known=0, seconds=5.3)
    async with Instance(clock, store=store) as instance:
        task = asyncio.create_task(instance.manager.get(instance.entry(provider)))
        await elapse(clock, 1.0)
        await store.release(keys_of(provider), "closing", version=lease.version, note=b"", seconds=1)  # type: ignore[union-attr]
        await elapse(clock, 1.0)
        await task
    assert ["busy", "won"] == [event.change for event in instance.events if isinstance(event, LeaseChanged)]
    assert [] == caplog.messages


async def test_a_refused_commit_is_published(clock: ManualClock, endpoint: Endpoint) -> None:
    """A token that was invalidated while it was fetched is not stored, and the next one is fetched."""
    store, provider = MemoryStore(MemoryRedis(clock)), ScriptedProvider(endpoint)
    endpoint.takes(1.0)
    async with Instance(clock, store=store) as instance:
        task = asyncio.create_task(instance.manager.get(instance.entry(provider)))
        await elapse(clock, 0.5)
        await instance.sync.invalidate_current(instance.entry(provider))
        await elapse(clock, 3.0)
        await task
    refused = [event for event in instance.events if isinstance(event, CommitRefused)]
    assert ["invalidated"] == [event.reason for event in refused]


async def test_a_revocation_of_many_tokens_is_logged(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """One token that an API rejects is no line; ten of a provider within a minute are one, and the rest are counted."""
    async with Instance(clock) as instance:
        entries = [instance.entry(ScriptedProvider(endpoint, secret=f"s{number}")) for number in range(50)]
        tokens = [await instance.manager.get(entry) for entry in entries]
        clock.advance(60.0)
        for token in tokens[:9]:
            assert await instance.sync.invalidate(token)
        assert [] == caplog.messages
        for token in tokens[9:]:
            assert await instance.sync.invalidate(token)
    assert ["tokenmw: p: 10 tokens were invalidated within 0 s, the last one by this cause: api"] == caplog.messages
    causes = [event.cause for event in instance.events if isinstance(event, TokenInvalidated)]
    assert 50 * ["api"] == causes
