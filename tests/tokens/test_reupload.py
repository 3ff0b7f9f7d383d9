"""After Redis has lost its data, tokens and tombstones are uploaded again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tokens.instance import Instance, keys_of
from tests.tokens.providers import Endpoint, ScriptedProvider
from tests.tokens.world import World
from tokenmw.limits import Limits
from tokenmw.redis.token_store import Found
from tokenmw.testing import ManualClock


def mark_unshared(world: World, *numbers: int) -> None:
    """Let instances assume that Redis has lost its data."""
    for number in numbers:
        instance = world.instances[number]
        for entry in instance.entries:
            entry.mark_unshared(instance.clock.monotonic())


async def test_a_token_is_shared_again_without_a_request(world: World) -> None:
    """The entry was compared just before, and no request uses it."""
    await world.get(0)
    await world.instances[0].housekeep()
    world.redis.flush()
    mark_unshared(world, 0)
    await world.instances[0].housekeep()
    assert "token-1" == (await world.get(1)).value
    assert 1 == len(world.endpoint.calls)


async def test_a_token_that_another_instance_has_uploaded_is_not_read(world: World) -> None:
    """The batch of headers shows that Redis has it, so that it counts as shared."""
    await world.get(0)
    await world.get(1)
    world.redis.flush()
    mark_unshared(world, 0, 1)
    await world.instances[0].housekeep()
    one = world.instances[1]
    entries = list(one.entries)
    assert [False] == [entry.current is not None and entry.current.shared for entry in entries]
    assert [] == await one.sync.changed(entries)
    assert [True] == [entry.current is not None and entry.current.shared for entry in entries]


async def test_an_older_token_does_not_replace_a_newer_one(world: World) -> None:
    """The instance with the older token adopts the newer one, whichever is uploaded first."""
    for first, second in ((0, 1), (1, 0)):
        old = await world.get(0)
        world.clock.advance(60)
        await world.get(1)
        assert await world.instances[0].sync.invalidate(old)
        new = await world.get(0)
        world.redis.flush()
        mark_unshared(world, 0, 1)
        for number in (first, second):
            await world.instances[number].housekeep()
        world.clock.advance(31)
        for number in (1, 2):
            await world.get(number)  # in use, so it is compared
            await world.instances[number].housekeep()
        assert new.value == (await world.get(0)).value == (await world.get(1)).value == (await world.get(2)).value
        world.clock.advance(700)


async def test_a_tombstone_is_uploaded_again(world: World) -> None:
    """Without it, an instance that still has the invalid token would upload that."""
    token = await world.get(0)
    await world.get(1)
    world.clock.advance(60)
    instance = world.instances[0]
    assert await instance.sync.invalidate(token)
    world.redis.flush()
    mark_unshared(world, 0)
    await instance.housekeep()
    _, invalid = await world.stores[0].read(keys_of(ScriptedProvider(world.endpoint)))
    assert instance.entry(ScriptedProvider(world.endpoint)).invalid_version == invalid > 0
    mark_unshared(world, 1)
    await world.instances[1].housekeep()
    found, _ = await world.stores[0].read(keys_of(ScriptedProvider(world.endpoint)))
    assert found is None
    world.clock.advance(7200)
    mark_unshared(world, 0)
    assert not instance.sync.is_due(instance.entry(ScriptedProvider(world.endpoint)), world.clock.monotonic())


async def test_a_tombstone_is_uploaded_again_though_no_request_came_since(world: World) -> None:
    """Purging keeps the entry as long as the invalid token would live, and no longer."""
    token = await world.get(0)
    await world.get(1)
    world.clock.advance(60)
    instance = world.instances[0]
    assert await instance.sync.invalidate(token)
    world.clock.advance(3600)
    instance.entries.purge()
    world.redis.flush()
    mark_unshared(world, 0, 1)
    for number in (1, 0, 1):
        await world.instances[number].housekeep()
    found, _ = await world.stores[0].read(keys_of(ScriptedProvider(world.endpoint)))
    assert found is None
    world.clock.advance(3600)
    instance.entries.purge()
    assert [] == list(instance.entries)


async def test_a_reply_from_before_redis_lost_its_data_does_not_count_as_its_state(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read reports a tombstone, and Redis has lost it by the time the reply arrives; it is uploaded again."""
    instance, store, keys = world.instances[0], world.stores[0], keys_of(ScriptedProvider(world.endpoint))
    first = await world.get(0)
    world.clock.advance(60)
    assert await instance.sync.invalidate(first)
    second = await world.get(0)
    await world.get(1)
    world.clock.advance(60)
    assert await world.instances[1].sync.invalidate(await world.get(1))
    read = store.read

    async def late(*args: Any) -> tuple[Found | None, int]:
        answer = await read(*args)
        world.redis.flush()
        mark_unshared(world, 0)
        return answer

    monkeypatch.setattr(store, "read", late)
    entry = instance.entry(ScriptedProvider(world.endpoint))
    await instance.sync.compare(entry)
    monkeypatch.setattr(store, "read", read)
    await instance.housekeep()
    assert second.value != (await world.get(0)).value
    assert entry.invalid_version == (await read(keys))[1] > 0


async def test_entries_kept_for_a_tombstone_are_bounded(world: World) -> None:
    """Invalidated tenants take no more entries than the bound."""
    async with Instance(world.clock, store=world.stores[0], limits=Limits(tokens=10)) as instance:
        for number in range(50):
            await instance.sync.invalidate_current(instance.entry(ScriptedProvider(world.endpoint, secret=str(number))))
        world.clock.advance(1)
        instance.entries.purge()
        assert 10 == len(instance.entries)


async def test_without_redis_no_entry_is_kept_for_a_tombstone(clock: ManualClock, endpoint: Endpoint) -> None:
    """There is no server to upload it to."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        await instance.manager.get(entry)
        await instance.sync.invalidate_current(entry)
        clock.advance(60)  # a tombstone would be kept for 30 days
        instance.entries.purge()
        assert [] == list(instance.entries)
