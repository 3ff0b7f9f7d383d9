"""Adopting another process's token while this process's provider fails."""

from __future__ import annotations

import asyncio

import pytest

from tests.tokens.instance import Instance, keys_of, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.providers import DependentProvider, Endpoint, ScriptedProvider
from tests.tokens.world import World
from tokenmw.errors import TokenUnavailable
from tokenmw.redis.token_store import Found, TokenKeys, TokenRecord
from tokenmw.testing import ManualClock
from tokenmw.values import Grant

AGING = 1000.0  # seconds left of 7 200: due for a refresh


async def store_token(redis: MemoryRedis, keys: TokenKeys, *, left: float) -> None:
    """Store a token as another process does."""
    record = TokenRecord("another's", "Bearer", 7200.0, None, {})
    await MemoryStore(redis).commit(keys, "another", record, version=redis.now() + 1, left=left)


async def fail_in_a_row(world: World, count: int) -> None:
    """Let instance 0 ask a provider that fails, again after each backoff; the last backoff has just begun."""
    world.endpoint.fails(TokenUnavailable("ConnectError"))
    for _ in range(count):
        with pytest.raises(TokenUnavailable, match="ConnectError"):
            await world.get(0)
        world.clock.advance(60)
    with pytest.raises(TokenUnavailable, match="ConnectError"):
        await world.get(0)


async def adopt(world: World) -> None:
    """Send a request to instance 0 that lets it read Redis, and wait until it has."""
    with pytest.raises(TokenUnavailable, match="ConnectError"):
        await world.get(0)
    await settle()


async def test_an_aging_token_of_another_process_does_not_end_the_backoff(world: World) -> None:
    """The token is served, and the provider is asked again when the backoff of 24 to 32 s ends, not before."""
    await fail_in_a_row(world, 5)
    asked = len(world.endpoint.calls)
    await store_token(world.redis, keys_of(ScriptedProvider(world.endpoint)), left=AGING)
    await adopt(world)
    for _ in range(22):
        assert "another's" == (await world.get(0)).value
        await settle()
        world.clock.advance(1)
    assert asked == len(world.endpoint.calls)
    world.clock.advance(10)
    await world.get(0)
    await settle()
    assert asked + 1 == len(world.endpoint.calls)
    failure = world.instances[0].entry(ScriptedProvider(world.endpoint)).failure
    assert failure is not None
    assert 7 == failure.count


async def test_a_fresh_token_of_another_process_ends_the_failure(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing to ask the provider for, and the recovery is logged."""
    await fail_in_a_row(world, 1)
    await store_token(world.redis, keys_of(ScriptedProvider(world.endpoint)), left=7000.0)
    await adopt(world)
    assert world.instances[0].entry(ScriptedProvider(world.endpoint)).failure is None
    assert "p: there is a token again" in caplog.messages[-1]


async def test_a_recovery_is_logged_when_the_provider_recovers_and_not_when_an_aging_token_is_adopted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A line for each aging token of another process, and one for the failure after it, would flood the log."""
    await fail_in_a_row(world, 5)
    await store_token(world.redis, keys_of(ScriptedProvider(world.endpoint)), left=AGING)
    await adopt(world)
    assert "another's" == (await world.get(0)).value
    assert [] == [line for line in caplog.messages if "again" in line]
    world.endpoint.answer = world.endpoint.new
    world.clock.advance(60)
    await world.get(0)
    await settle()
    assert "token-1" == (await world.get(0)).value
    assert 1 == len([line for line in caplog.messages if "p: there is a token again" in line])


async def test_an_aging_token_of_another_process_serves_the_providers_that_need_it(clock: ManualClock) -> None:
    """A tenant whose request failed for want of the app's token is refreshed as soon as there is one."""
    app_stage, tenants, redis = Endpoint(clock), Endpoint(clock), MemoryRedis(clock)
    app = ScriptedProvider(app_stage)
    tenant = DependentProvider(tenants, app)
    app_stage.fails(TokenUnavailable("busy", retry_after=3000.0))
    async with Instance(clock, store=MemoryStore(redis)) as instance:
        with pytest.raises(TokenUnavailable, match="busy"):
            await instance.manager.get(instance.entry(tenant))
        await store_token(redis, keys_of(app), left=AGING)
        clock.advance(1)
        with pytest.raises(TokenUnavailable, match="busy"):
            await instance.manager.get(instance.entry(tenant))
        await settle()
        assert "token-1" == (await instance.manager.get(instance.entry(tenant))).value
    assert 1 == len(app_stage.calls)


async def test_an_entry_is_purged_after_slow_reads_of_redis(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests in a backoff read Redis once a second; an entry that stays in memory for ever keeps its secret there."""
    store, reply = MemoryStore(MemoryRedis(clock)), asyncio.Event()
    app_stage = Endpoint(clock)
    app = ScriptedProvider(app_stage)
    tenant = DependentProvider(Endpoint(clock), app)
    app_stage.fails(TokenUnavailable("busy", retry_after=100.0))

    async def slow(_keys: TokenKeys) -> tuple[Found | None, int]:
        await reply.wait()
        return None, 0

    async with Instance(clock, store=store) as instance:
        for _ in range(3):
            with pytest.raises(TokenUnavailable, match="busy"):
                await instance.manager.get(instance.entry(tenant))
            monkeypatch.setattr(store, "read", slow)
            clock.advance(2)
            await settle()
        reply.set()
        await settle()
        clock.advance(5000)
        instance.entries.purge()
        assert [] == list(instance.entries)


async def test_a_fetch_that_ignores_its_cancellation_fails_when_its_time_is_over(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """The backoff begins then, and not when the provider's code has ended."""
    gate = asyncio.Event()

    async def stubborn() -> Grant:
        try:
            await clock.sleep(1e6)
        except asyncio.CancelledError:
            await gate.wait()
        return await endpoint.new()

    endpoint.answer = stubborn
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        waiting = asyncio.create_task(instance.manager.get(entry))
        await settle()
        await clock.elapse(5.0)
        assert entry.failure is not None
        gate.set()
        with pytest.raises(TokenUnavailable, match="did not answer within 5 s"):
            await waiting
