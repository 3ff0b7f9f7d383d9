"""A lease that Redis holds for a process that does not know of it does not make the others wait until it expires."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.tokens.instance import Instance, keys_of, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.providers import Endpoint, ScriptedProvider
from tokenmw import TokenUnavailable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 3  # as many replies as a refresh waits for before it asks the provider alone


class LossyStore(MemoryStore):
    """A store that loses replies: the server executes the commands.

    Attributes:
        lost: How many further replies each method loses.
        reason: For what reason.
        calls: The methods called so far.
    """

    def __init__(self, server: MemoryRedis, *, reason: str = "timeout", **lost: int) -> None:
        super().__init__(server)
        self.lost = lost
        self.reason = reason
        self.calls: list[str] = []

    async def acquire(self, *args: Any, **options: Any) -> Any:
        return self._lose("acquire", await super().acquire(*args, **options))

    async def release(self, *args: Any, **options: Any) -> None:
        await super().release(*args, **options)
        self._lose("release", None)

    def _lose(self, method: str, reply: Any) -> Any:
        self.calls.append(method)
        if self.lost.get(method, 0) > 0:
            self.lost[method] -= 1
            raise RedisUnavailable(self.reason)
        return reply


async def elapse(clock: ManualClock, seconds: float) -> None:
    """Let time pass in steps that are shorter than any wait."""
    for _ in range(round(seconds / 0.02)):
        await clock.elapse(0.02)
        await settle()


async def waited(clock: ManualClock, endpoint: Endpoint, store: MemoryStore, *, outage: float = 0.0) -> float:
    """Return the seconds that another process waits for the token which one fetches in a second, from that second on.

    Redis is unavailable to the first process for the `outage`, in seconds.
    """
    endpoint.takes(1.0)
    provider = ScriptedProvider(endpoint)
    async with Instance(clock, store=store) as one, Instance(clock, store=MemoryStore(store.server)) as two:
        mine = asyncio.create_task(one.manager.get(one.entry(provider)))
        await settle()
        store.cut = outage > 0
        theirs = asyncio.create_task(two.manager.get(two.entry(provider)))
        await elapse(clock, 1.04)
        assert mine.done()
        began = clock.monotonic()
        while not theirs.done():
            store.cut = clock.monotonic() - began < outage
            await elapse(clock, 0.02)
        assert (await mine).value == (await theirs).value
    assert 1 == len(endpoint.calls)
    return clock.monotonic() - began


@pytest.mark.parametrize(("reason", "times"), [("timeout", TIMES), ("reset", 1), ("error", 1)])
@pytest.mark.parametrize("outage", [0.0, 2.0])
async def test_another_process_gets_the_token_as_soon_as_redis_answers(
    clock: ManualClock, endpoint: Endpoint, reason: str, times: int, outage: float
) -> None:
    """The reply to `acquire` is lost, so the process fetches without Redis; the other waited 4.3 s for the lease."""
    store = LossyStore(MemoryRedis(clock), reason=reason, acquire=times)
    assert await waited(clock, endpoint, store, outage=outage) <= outage + 0.3


async def test_a_lease_ends_that_was_not_used_for_a_commit(clock: ManualClock, endpoint: Endpoint) -> None:
    """Redis becomes unavailable during the request, so the token is not stored under the lease."""
    assert await waited(clock, endpoint, MemoryStore(MemoryRedis(clock)), outage=0.5) <= 0.8


async def test_a_lost_reply_to_the_release_of_a_lost_lease(clock: ManualClock, endpoint: Endpoint) -> None:
    """It is repeated, because the release may not have been executed."""
    store = LossyStore(MemoryRedis(clock), acquire=TIMES, release=1)
    assert await waited(clock, endpoint, store) <= 0.3
    assert ["acquire"] * 3 + ["acquire", "release"] * 2 == store.calls


async def test_another_process_asks_after_the_provider_has_failed(clock: ManualClock, endpoint: Endpoint) -> None:
    """The lease ends although there is no token."""
    endpoint.fails(TokenUnavailable("busy"))
    store = LossyStore(MemoryRedis(clock), acquire=TIMES)
    provider = ScriptedProvider(endpoint)
    async with Instance(clock, store=store) as one, Instance(clock, store=MemoryStore(store.server)) as two:
        with pytest.raises(TokenUnavailable):
            await one.manager.get(one.entry(provider))
        await settle()
        endpoint.answer = endpoint.new
        assert "token-1" == (await asyncio.wait_for(two.manager.get(two.entry(provider)), 5)).value


@pytest.mark.parametrize("reason", ["open", "busy", "refused"])
async def test_no_command_follows_one_that_was_not_sent(clock: ManualClock, endpoint: Endpoint, reason: str) -> None:
    """While Redis is unavailable, refreshes leave nothing behind that asks it."""
    store = LossyStore(MemoryRedis(clock), reason=reason, acquire=TIMES)
    async with Instance(clock, store=store) as one:
        task = asyncio.create_task(one.manager.get(one.entry(ScriptedProvider(endpoint))))
        await elapse(clock, 0.1)
        assert task.done()
        before = list(store.calls)
        await elapse(clock, 1.0)
        assert before == store.calls


async def test_it_stops_when_the_lease_has_expired(clock: ManualClock, endpoint: Endpoint) -> None:
    """A long outage costs no tries beyond that; closing ends them sooner."""
    store = LossyStore(MemoryRedis(clock), acquire=10_000)
    async with Instance(clock, store=store) as one:
        await one.manager.get(one.entry(ScriptedProvider(endpoint)))
        await elapse(clock, 6.0)
        before = len(store.calls)
        assert before > TIMES
        await elapse(clock, 6.0)
        assert before == len(store.calls)
        await one.manager.get(one.entry(ScriptedProvider(endpoint, secret="t")))
        await settle()
        await asyncio.wait_for(one.stop(), 1)


async def test_the_lease_of_another_process_is_left_alone(clock: ManualClock, endpoint: Endpoint) -> None:
    """Redis did not execute `acquire`, and has given the lease to another process since."""
    redis = MemoryRedis(clock)
    provider = ScriptedProvider(endpoint)
    keys: Callable[..., Any] = keys_of
    async with Instance(clock, store=LossyStore(redis, acquire=TIMES)) as one:
        endpoint.takes(1.0)
        task = asyncio.create_task(one.manager.get(one.entry(provider)))
        await settle()
        redis.delete(keys(provider), "lease")
        reply = await MemoryStore(redis).acquire(keys(provider), "another", known=0, seconds=5.0)
        await elapse(clock, 1.2)
        assert task.done()
        lease = redis.get(keys(provider), "lease")
        assert lease is not None
        assert ("another", lease.version) == (lease.owner, getattr(reply, "version", None))
