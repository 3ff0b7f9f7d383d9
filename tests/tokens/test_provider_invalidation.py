"""Invalidating a provider drops the token it has, and the one that is being fetched."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from tests.tokens.instance import Instance, SkewedClock, settle
from tests.tokens.providers import Endpoint, ScriptedProvider
from tests.tokens.world import World
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.token_store import Found, TokenKeys
from tokenmw.testing import ManualClock
from tokenmw.values import Grant


async def test_all_instances_get_a_new_token(world: World) -> None:
    """The provider is asked immediately, even during a backoff."""
    for number in range(2):
        await world.get(number)
    instance = world.instances[2]
    await instance.sync.invalidate_current(instance.entry(ScriptedProvider(world.endpoint)))
    assert "token-2" == (await world.get(2)).value
    world.clock.advance(31)
    await world.get(1)
    await world.instances[1].housekeep()
    await settle()
    assert "token-2" == (await world.get(1)).value
    world.endpoint.fails(CredentialRejected("wrong secret"))
    world.clock.advance(7200)
    with pytest.raises(CredentialRejected):
        await world.get(0)
    world.endpoint.answer = world.endpoint.new
    first = world.instances[0]
    await first.sync.invalidate_current(first.entry(ScriptedProvider(world.endpoint)))
    assert "token-3" == (await world.get(0)).value


@pytest.mark.parametrize("redis", ["none", "unavailable"])
async def test_a_token_that_is_being_fetched_is_dropped(world: World, redis: str) -> None:
    """It was requested before the invalidation, so the waiting request gets the next one."""
    world.redis.up = False
    async with Instance(world.clock, store=None if redis == "none" else world.stores[0]) as instance:
        entry = instance.entry(ScriptedProvider(world.endpoint))
        world.endpoint.takes(2.0)
        waiting = asyncio.create_task(instance.manager.get(entry))
        await settle()
        await world.clock.elapse(1.0)
        await instance.sync.invalidate_current(entry)
        await world.clock.elapse(1.0)
        await settle()
        assert not waiting.done()
        await world.clock.elapse(2.0)
        assert "token-2" == (await waiting).value == (await instance.manager.get(entry)).value
    assert 2 == len(world.endpoint.calls)


async def test_endless_invalidations_do_not_make_requests_wait_endlessly(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """Invalidations faster than the provider's answers are a failure after 12 s, also for requests that came later."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.takes(4.5)
        first = asyncio.create_task(instance.manager.get(entry))
        for _ in range(13):
            await clock.elapse(0.5)
            await instance.sync.invalidate_current(entry)
            await clock.elapse(0.5)
        late = asyncio.create_task(instance.manager.get(entry))
        await clock.elapse(0.6)
        with pytest.raises(TokenUnavailable, match="still being fetched after 12 s"):
            await first
        with pytest.raises(TokenUnavailable, match="each token was invalidated"):
            await asyncio.wait_for(late, 5)
        assert not instance.manager.refreshing(entry)
    assert 3 == len(endpoint.calls)


async def test_a_token_fetched_under_a_lease_is_dropped_after_the_previous_one_expired(world: World) -> None:
    """The tombstone lasts as long as the token being fetched may live, not as long as the previous one."""
    for number in range(2):
        await world.get(number)
    world.clock.advance(7201)
    world.endpoint.takes(1.0)
    asking = asyncio.create_task(world.get(1))
    await world.clock.elapse(0.5)
    instance = world.instances[0]
    await instance.sync.invalidate_current(instance.entry(ScriptedProvider(world.endpoint)))
    await world.clock.elapse(3.0)
    assert "token-3" == (await asking).value == (await world.get(0)).value


@pytest.mark.parametrize("second", ["provider", "token"])
async def test_a_second_invalidation_does_not_shorten_the_first(world: World, second: str) -> None:
    """Redis recovers at a time when another instance would still upload the token that was invalidated first."""
    world.endpoint.lifetime = 86_400.0
    for number in range(2):
        await world.get(number)
    world.redis.up = False
    instance = world.instances[0]
    entry = instance.entry(ScriptedProvider(world.endpoint))
    await instance.sync.invalidate_current(entry)
    if second == "provider":
        await instance.sync.invalidate_current(entry)
    else:
        world.endpoint.lifetime = 100.0
        token = await world.get(0)
        world.clock.advance(10)
        assert await instance.sync.invalidate(token)
    world.clock.advance(40_000)
    world.redis.up = True
    await instance.housekeep()
    await world.get(1)
    await world.instances[1].housekeep()
    await settle()
    assert "token-1" != (await world.get(1)).value


async def test_a_token_fetched_without_redis_does_not_come_back_hours_later(world: World) -> None:
    """The lifetime of a token that another process is fetching is not known, so the tombstone lasts the maximum."""
    world.endpoint.lifetime = 86_400.0
    world.stores[2].cut = True
    world.endpoint.takes(2.0)
    asking = asyncio.create_task(world.get(2))
    await world.clock.elapse(1.0)
    instance = world.instances[0]
    await instance.sync.invalidate_current(instance.entry(ScriptedProvider(world.endpoint)))
    await world.clock.elapse(1.0)
    assert "token-1" == (await asking).value
    world.clock.advance(40_000)
    world.stores[2].cut = False
    await world.instances[2].housekeep()
    assert "token-2" == (await world.get(0)).value == (await world.get(2)).value


@pytest.mark.parametrize("redis", ["none", "unavailable", "lost"])
async def test_a_version_ahead_of_the_clock_is_dropped(world: World, redis: str) -> None:
    """The wall clock is set back during the fetch, or the lease's version comes from a server whose clock is ahead."""
    clock = SkewedClock(world.clock)
    world.redis.wall = 300.0
    world.redis.up = redis == "lost"
    async with Instance(clock, store=None if redis == "none" else world.stores[0]) as instance:
        entry = instance.entry(ScriptedProvider(world.endpoint))
        world.endpoint.takes(2.0)
        waiting = asyncio.create_task(instance.manager.get(entry))
        await world.clock.elapse(1.0)
        world.redis.up = False
        clock.wall -= 60.0
        await instance.sync.invalidate_current(entry)
        await world.clock.elapse(3.5)
        assert "token-2" == (await waiting).value == (await instance.manager.get(entry)).value


async def test_a_lease_ahead_of_the_servers_clock_is_dropped(world: World) -> None:
    """An instance whose clock is ahead handed a token in, so later leases are ahead of the server's clock."""
    await world.instances[1].sync.hand_in(
        world.instances[1].entry(ScriptedProvider(world.endpoint)), Grant("handed-in", expires_in=7200)
    )
    assert {"handed-in"} == {(await world.get(number)).value for number in (0, 2)}
    first, last = world.instances[0], world.instances[2]
    await last.sync.invalidate_current(last.entry(ScriptedProvider(world.endpoint)))
    world.endpoint.takes(1.0)
    asking = asyncio.create_task(world.get(2))
    await world.clock.elapse(0.5)
    await first.sync.invalidate_current(first.entry(ScriptedProvider(world.endpoint)))
    await world.clock.elapse(2.0)
    assert "token-2" == (await asking).value == (await world.get(0)).value


async def test_a_lease_is_above_the_versions_invalidated_since_the_refresh_began(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis could not take the tombstone and its clock is behind: a lower version would be invalid on arrival."""

    async def busy(*_args: object, **_options: object) -> NoReturn:
        raise RedisUnavailable("busy")

    instance = world.instances[1]
    monkeypatch.setattr(world.stores[1], "write_tombstone", busy)
    world.endpoint.takes(1.0)
    asking = asyncio.create_task(world.get(1))
    await world.clock.elapse(0.5)
    await instance.sync.invalidate_current(instance.entry(ScriptedProvider(world.endpoint)))
    await world.clock.elapse(5.0)
    assert "token-2" == (await asking).value
    assert 2 == len(world.endpoint.calls)


async def test_a_handed_in_token_that_is_invalidated_meanwhile_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another instance invalidates everything between the read and the upload, so the caller starts a refresh."""
    instance, store = world.instances[0], world.stores[0]
    entry, read = instance.entry(ScriptedProvider(world.endpoint)), store.read
    assert entry.keys is not None
    assert not await instance.sync.hand_in(entry, Grant("handed-in-1", expires_in=7200))
    found: list[tuple[Found | None, int]] = []

    async def then_invalidated(keys: TokenKeys, /) -> tuple[Found | None, int]:
        found.append(await read(keys))
        if len(found) == 1:
            world.redis.wall = 60.0
            await world.stores[1].write_tombstone(keys, version=None, known=world.redis.now(), left=7200)
        return found[-1]

    monkeypatch.setattr(store, "read", then_invalidated)
    assert await instance.sync.hand_in(entry, Grant("handed-in-2", expires_in=7200))
    assert entry.current is None
