"""Versions are made from clocks. One that was wrong by days, or a planted version, does not end sharing."""

from __future__ import annotations

import asyncio

import pytest

from tests.tokens.instance import Instance, SkewedClock, settle
from tests.tokens.memory_store import MemoryStore
from tests.tokens.providers import DependentProvider, Endpoint, ScriptedProvider
from tests.tokens.world import World
from tokenmw.errors import TokenUnavailable
from tokenmw.redis.token_store import Leased
from tokenmw.testing import ManualClock
from tokenmw.values import Grant

DAY = 86_400.0


async def housekeep(world: World) -> None:
    """Let each instance do a few rounds of housekeeping, with the time between them."""
    for _ in range(3):
        for instance in world.instances:
            for entry in instance.entries:
                entry.used = True
            await instance.housekeep()
        await world.clock.elapse(40)


async def values(world: World) -> set[str]:
    """Return the tokens that the instances have."""
    return {(await world.get(number)).value for number in range(len(world.instances))}


@pytest.mark.parametrize("days", [-7.0, -0.5, 0.5, 7.0])
async def test_tokens_stay_shared_after_the_servers_clock_was_set(world: World, days: float) -> None:
    """All instances have one token before and after, and the next expiry costs one fetch."""
    world.redis.wall = 7 * DAY
    assert len(await values(world)) == 1
    world.redis.wall += days * DAY
    await housekeep(world)
    assert len(await values(world)) == 1
    assert len(world.endpoint.issued) == 1
    await world.clock.elapse(7_000)
    for _ in range(3):
        await values(world)  # starts refreshes in the background
        await world.clock.elapse(1)
    assert len(await values(world)) == 1
    assert len(world.endpoint.issued) == 2


async def test_refresh_takes_the_time_of_a_server_whose_clock_was_set_back(world: World) -> None:
    """Without housekeeping in between, one fetch replaces the token of all instances when it has expired."""
    world.redis.wall = 7 * DAY
    assert len(await values(world)) == 1
    world.redis.wall = 0.0
    await world.clock.elapse(7_300)
    assert len(await values(world)) == 1
    assert len(world.endpoint.issued) == 2


async def test_invalidation_reaches_others_from_an_instance_whose_clock_is_days_ahead(world: World) -> None:
    """It writes a tombstone by the server's clock: everyone drops the token, and one instance fetches the next one."""
    async with Instance(SkewedClock(world.clock, wall=3 * DAY), store=MemoryStore(world.redis)) as wrong:
        world.instances.append(wrong)
        first = await values(world)
        await wrong.sync.invalidate_current(wrong.entry(ScriptedProvider(world.endpoint)))
        await housekeep(world)
        second = await values(world)
        assert len(second) == 1
        assert not first & second
        assert len(world.endpoint.issued) == 2
        for instance in world.instances:
            assert instance.entry(ScriptedProvider(world.endpoint)).known_version < world.redis.now()


@pytest.mark.parametrize("days", [-3.0, 3.0])
async def test_token_fetched_without_redis_by_a_wrong_clock_is_shared(world: World, days: float) -> None:
    """Its version is made again by the server's clock when it is uploaded."""
    store = MemoryStore(world.redis)
    async with Instance(SkewedClock(world.clock, wall=days * DAY), store=store) as wrong:
        world.instances.append(wrong)
        store.cut = True
        mine = (await world.get(3)).value
        store.cut = False
        await housekeep(world)
        assert await values(world) == {mine}
        assert len(world.endpoint.issued) == 1


async def test_noted_failure_ends_when_redis_has_lost_the_note(world: World) -> None:
    """It may last for an hour, but no longer than the note."""
    provider = ScriptedProvider(world.endpoint)
    instance, dependent = world.instances[0], DependentProvider(world.endpoint, provider)
    entry = instance.entry(provider)
    assert entry.keys is not None
    store = MemoryStore(world.redis)
    lease = await store.acquire(entry.keys, "a1", known=0, seconds=6)
    assert isinstance(lease, Leased)
    note = b'[false, "busy", "", 1]'
    await store.release(entry.keys, "a1", version=lease.version, note=note, seconds=1e9)
    now = world.clock.monotonic()
    for one in (provider, dependent):
        with pytest.raises(TokenUnavailable):
            await instance.manager.get(instance.entry(one))
        assert (instance.entry(one).failure or entry.failure).retry_at <= now + 3_600  # type: ignore[union-attr]
    await world.clock.elapse(1.1)
    with pytest.raises(TokenUnavailable):
        await instance.manager.get(entry)
    await settle()
    assert not world.endpoint.issued
    world.redis.flush()
    await world.clock.elapse(1.1)
    with pytest.raises(TokenUnavailable):
        await instance.manager.get(entry)
    await settle()
    for one in (dependent, provider):
        assert (await instance.manager.get(instance.entry(one))).value


@pytest.mark.parametrize("expired", [True, False], ids=["expired", "cold"])
@pytest.mark.parametrize("shared", [True, False], ids=["with redis", "alone"])
async def test_a_clock_set_forward_during_a_fetch_refuses_no_request(
    world: World, *, shared: bool, expired: bool
) -> None:
    """That the token has expired when it arrives is no fault of the provider, so it is asked again immediately.

    The same happens when the machine was suspended.
    """
    clock, endpoint = world.clock, world.endpoint

    async def step() -> Grant:
        clock.step_wall(endpoint.lifetime + 100)
        endpoint.answer = endpoint.new
        return await endpoint.new()

    async with Instance(clock, store=MemoryStore(world.redis) if shared else None) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        if expired:
            await instance.manager.get(entry)
            await clock.elapse(endpoint.lifetime)
        endpoint.answer = step
        waiting = asyncio.create_task(instance.manager.get(entry))
        await clock.elapse(0.1)
        assert f"token-{2 + expired}" == (await waiting).value
        assert entry.failure is None
        assert 2 + expired == len(endpoint.calls)


async def test_a_token_that_has_expired_when_it_arrives_is_a_failure(clock: ManualClock, endpoint: Endpoint) -> None:
    """If the provider took longer than its token is valid, it is asked again after a backoff only."""
    endpoint.lifetime = 0.5
    endpoint.takes(1.0)
    async with Instance(clock) as instance:
        waiting = asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(endpoint))))
        await clock.elapse(1.5)
        with pytest.raises(TokenUnavailable):
            await waiting
        assert 1 == len(endpoint.calls)
