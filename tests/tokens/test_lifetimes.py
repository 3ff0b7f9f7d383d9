"""Lifetimes of all lengths, providers that repeat their token, and machines that were suspended."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.tokens.instance import Instance, SkewedClock, keys_of, settle
from tests.tokens.memory_store import MemoryStore
from tests.tokens.providers import Endpoint, ScriptedProvider
from tests.tokens.world import World, make_world
from tokenmw.errors import TokenUnavailable
from tokenmw.testing import ManualClock
from tokenmw.values import Grant


async def test_a_repeated_token_is_not_requested_again_immediately(clock: ManualClock, endpoint: Endpoint) -> None:
    """A provider that repeats its token until shortly before it expires (WeChat, QQ) gets few requests."""
    issued = clock.monotonic()

    async def same() -> Grant:
        left = 7200.0 - (clock.monotonic() - issued)
        if left > 300:
            return Grant("the-one", expires_in=int(left))
        return await endpoint.new()

    endpoint.answer = same
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        await instance.manager.get(entry)
        while clock.monotonic() < issued + 7190:
            token = instance.manager.fresh(entry)
            assert token is not None
            await settle(5)
            clock.advance(1)
        times_left = [7200 - (call - issued) for call in endpoint.calls]
        # In the refresh window, and then at half of the time that remained, until the provider grants a new token.
        assert 1440 <= times_left[1] <= 1800
        assert times_left[1] / 2 == pytest.approx(times_left[2], abs=3)
        assert times_left[2] / 2 == pytest.approx(times_left[3], abs=3)
        assert 5 == len(times_left)
        assert "token-1" == (await instance.manager.get(entry)).value


@pytest.mark.parametrize(
    ("refresh_in", "earliest", "latest"),
    [(43_199, 43_199, 51_840), ("43199", 43_199, 51_840), ("soon", 82_799, 83_520)],
)
async def test_provider_names_the_time_of_the_refresh(refresh_in: object, earliest: float, latest: float) -> None:
    """A new token is fetched after `refresh_in`, jittered, by an instance that has read the token from Redis as well.

    Entra sends it so that its clients outlive an outage of hours.
    """
    async with make_world() as world:

        async def long_lived() -> Grant:
            return Grant(f"t-{len(world.endpoint.calls)}", expires_in=86_399, extra={"refresh_in": refresh_in})

        world.endpoint.answer = long_lived
        for number in (0, 1):
            assert "t-1" == (await world.get(number)).value
        entries = [instance.entry(ScriptedProvider(world.endpoint)) for instance in world.instances[:2]]
        kept = [entry.current for entry in entries if entry.current is not None]
        issued = world.endpoint.calls[0]
        due = [token.refresh_mono - issued for token in kept]
        assert earliest - 1 <= min(due) < max(due) <= latest + 1


async def test_a_token_repeated_until_it_expires_is_requested_once_a_minute_at_most(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """Without a declared `renewal_window`, half of the remaining time alone would mean ever more requests."""
    expires = clock.monotonic() + 7200.0

    async def same() -> Grant:
        return Grant("the-one", expires_in=expires - clock.monotonic())

    endpoint.answer = same
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        await instance.manager.get(entry)
        while clock.monotonic() < expires - 11:
            assert instance.manager.fresh(entry) is not None
            await settle(5)
            clock.advance(1)
    waits = [later - earlier for earlier, later in pairwise(endpoint.calls)]
    assert 60.0 <= min(waits) <= 62.0


async def test_with_a_renewal_window_of_zero_requests_wait_once_per_expiry(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """WeCom repeats its token until it expires, so it is not asked before that, and then once."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint, renewal_window=0))
        first = await instance.manager.get(entry)
        clock.advance(7199.9)
        assert first is instance.manager.fresh(entry)
        await settle()
        assert 1 == len(endpoint.calls)
        clock.advance(0.2)
        assert instance.manager.fresh(entry) is None
        assert "token-2" == (await instance.manager.get(entry)).value


@pytest.mark.parametrize("lifetime", [0.064, 1.0, 300.0, 7200.0, 10 * 365 * 86_400.0])
async def test_any_lifetime_works(clock: ManualClock, endpoint: Endpoint, lifetime: float) -> None:
    """From 64 ms to ten years (cut to 30 days), tokens are refreshed in time: two fetches in one lifetime."""
    endpoint.lifetime = lifetime
    kept = min(lifetime, 30 * 86_400.0)
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        first = await instance.manager.get(entry)
        assert kept == pytest.approx(first.expires_at - clock.time(), abs=1e-6)
        for _ in range(1000):
            token = instance.manager.fresh(entry)
            assert token is not None
            assert clock.time() < token.expires_at
            await settle(5)
            clock.advance(kept / 1000)
        assert 2 == len(endpoint.calls)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("window", [60, 300, 1800])
async def test_a_token_repeated_until_a_window_is_replaced_without_a_wait(
    clock: ManualClock, endpoint: Endpoint, window: int, *, declared: bool
) -> None:
    """A declared window lets no request wait, and an undeclared one causes a few more fetches: QQ, WeChat, Feishu."""
    issued = {"at": clock.monotonic()}

    async def same() -> Grant:
        left = 7200.0 - (clock.monotonic() - issued["at"])
        if endpoint.issued and left > window:
            return Grant(endpoint.issued[-1], expires_in=int(left))
        issued["at"] = clock.monotonic()
        return await endpoint.new()

    endpoint.answer = same
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint, renewal_window=window if declared else None))
        first = await instance.manager.get(entry)
        for _ in range(7195):
            clock.advance(1)
            assert instance.manager.fresh(entry) is not None or not declared
            await settle(4)
        assert first != await instance.manager.get(entry)
        assert len(endpoint.calls) <= (2 if declared else 9)


def suspended(world: World, seconds: float) -> Instance:
    """Return an instance whose machine is suspended during a fetch: only its wall clock shows that."""
    clock = SkewedClock(world.clock)

    async def slow() -> Grant:
        grant = await world.endpoint.new()
        clock.wall += seconds
        return grant

    world.endpoint.answer = slow
    return Instance(clock, store=MemoryStore(world.redis))


@pytest.mark.parametrize(("step", "left"), [(3000.0, 4200.0), (-3000.0, 7200.0)])
async def test_the_time_for_which_a_machine_was_suspended_counts_for_the_others(
    world: World, step: float, left: float
) -> None:
    """Redis gets the time left by the stricter clock, not by one that stood still or was set back."""
    async with suspended(world, step) as instance:
        token = await instance.manager.get(instance.entry(ScriptedProvider(world.endpoint)))
    found, _invalid = await world.stores[0].read(keys_of(ScriptedProvider(world.endpoint)))
    assert found is not None
    assert token.value == found.record.value
    assert left == pytest.approx(found.left, abs=1e-3)


async def test_a_token_that_expired_while_a_machine_was_suspended_is_not_shared(world: World) -> None:
    """Nothing is stored, and the lease is released."""
    async with suspended(world, 7200.0) as instance:
        with pytest.raises(TokenUnavailable, match="already expired"):
            await instance.manager.get(instance.entry(ScriptedProvider(world.endpoint)))
    assert {} == world.redis.data


async def test_an_instance_that_was_suspended_adopts_the_token_fetched_meanwhile(world: World) -> None:
    """Its lease expired while it was suspended, and another instance fetched a token."""
    async with suspended(world, 7300.0) as instance:
        slow = world.endpoint.answer

        async def overtaken() -> Grant:
            grant = await slow()
            world.redis.delete(keys_of(ScriptedProvider(world.endpoint)), "lease")
            world.endpoint.answer = world.endpoint.new
            await world.get(0)
            return grant

        world.endpoint.answer = overtaken
        assert "token-2" == (await instance.manager.get(instance.entry(ScriptedProvider(world.endpoint)))).value
    assert 2 == len(world.endpoint.calls)


async def test_a_token_that_expired_and_was_invalidated_during_its_fetch_is_fetched_again(world: World) -> None:
    """It is treated like any token that is invalidated during its fetch: the waiting request gets the next one."""
    async with suspended(world, 7300.0) as instance:
        entry = instance.entry(ScriptedProvider(world.endpoint))
        slow = world.endpoint.answer

        async def invalidated() -> Grant:
            grant = await slow()
            await instance.sync.invalidate_current(entry)
            world.endpoint.answer = world.endpoint.new
            return grant

        world.endpoint.answer = invalidated
        waiting = asyncio.create_task(instance.manager.get(entry))
        await world.clock.elapse(1.0)
        assert "token-2" == (await waiting).value
