"""A failure that is only another credential's: no pause of its own, and over as soon as the other one has its token."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from itertools import pairwise

import pytest

from tests.tokens.instance import Instance, keys_of, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.scripted import Needy, Scripted, Stage
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers.base import Provider
from tokenmw.providers.http import TokenHTTP
from tokenmw.redis.token_store import Found, TokenKeys
from tokenmw.testing import ManualClock
from tokenmw.values import Grant

TICKET = Grant("ticket", expires_in=86_400.0)


class CountingStore(MemoryStore):
    """Counts what reaches Redis, by operation and token."""

    def __init__(self, server: MemoryRedis) -> None:
        super().__init__(server)
        self.counted: Counter[tuple[str, TokenKeys]] = Counter()

    async def read(self, keys: TokenKeys, /) -> tuple[Found | None, int]:
        self.counted["read", keys] += 1
        return await super().read(keys)


class App:
    """A ticket that comes by itself, the app's token for it, the tenants' for that."""

    def __init__(self, clock: ManualClock) -> None:
        self.asked, self.app, self.tenants = Stage(clock), Stage(clock), Stage(clock)
        self.asked.fails(TokenUnavailable("hand it in"))
        self.ticket = Scripted(self.asked)
        self.token = Needy(self.app, self.ticket)

    def tenant(self, name: str = "one") -> Needy:
        return Needy(self.tenants, self.token, secret=name)


async def fails(one: Instance, provider: Provider, seconds: int, *, clock: ManualClock, every: int = 1) -> None:
    """Ask for so many seconds in vain."""
    for _ in range(0, seconds, every):
        with pytest.raises(TokenUnavailable, match="hand it in"):
            await one.manager.get(one.entry(provider))
        clock.advance(every)
        await settle(10)


@pytest.mark.parametrize("seconds", [1, 5, 60, 600, 1200])
async def test_what_was_waited_for_ends_it_at_once(clock: ManualClock, seconds: int) -> None:
    """However long the other one has failed, the next request gets its token, with no second in between."""
    app = App(clock)
    async with Instance(clock) as one:
        await fails(one, app.tenant(), seconds, clock=clock)
        await one.sync.hand_in(one.entry(app.ticket), TICKET)
        assert (await one.manager.get(one.entry(app.tenant()))).value
    assert (1, 1) == (len(app.app.calls), len(app.tenants.calls))
    assert len(app.asked.calls) <= 14


async def test_an_other_one_that_hangs_is_no_failure_of_its_own_either(clock: ManualClock) -> None:
    """The fetch that waits for it gives up in time to say so, and not as if its own provider did not answer."""
    app = App(clock)
    app.asked.takes(1e6)
    async with Instance(clock) as one:
        tenant = one.entry(app.tenant())
        for _ in range(40):
            waiting = asyncio.create_task(one.manager.get(tenant))
            await clock.elapse(10.0)
            with pytest.raises(TokenUnavailable, match=r"p: no valid token: needy: .*(still being|did not answer)"):
                await waiting
            assert tenant.failure is not None
            assert 0 == tenant.failure.count
        assert len(app.asked.calls) <= 11
        await one.sync.hand_in(one.entry(app.ticket), TICKET)
        assert (await one.manager.get(tenant)).value
    assert 0 == clock.sleepers


async def test_the_wait_that_is_told_is_the_others(clock: ManualClock) -> None:
    """Whoever obeys it comes when there is something to be had by asking."""
    app = App(clock)
    app.asked.fails(TokenUnavailable("hand it in", retry_after=50.0))
    async with Instance(clock) as one:
        await fails(one, app.tenant(), 10, clock=clock)
        with pytest.raises(TokenUnavailable) as info:
            await one.manager.get(one.entry(app.tenant()))
    assert {"Retry-After": "40"} == info.value.headers


async def test_a_failing_app_is_asked_by_many_tenants_no_more_often_than_by_one(clock: ManualClock) -> None:
    """Promise 5: its own pauses grow, and in them no tenant causes a request or a flight."""
    attempts: dict[int, list[float]] = {}
    for count in (1, 40):
        app = App(clock)
        app.token = Needy(app.app, Scripted(Stage(clock)))
        app.app.fails(TokenUnavailable("busy", said=True))
        async with Instance(clock, store=MemoryStore(MemoryRedis(clock))) as one:
            began = clock.monotonic()
            tenants = [one.entry(app.tenant(str(number))) for number in range(count)]
            for _ in range(600):
                for tenant in tenants:
                    with pytest.raises(TokenUnavailable, match="busy"):
                        await one.manager.get(tenant)
                    assert tenant.failure is not None
                    assert 0 == tenant.failure.count
                clock.advance(1)
                await settle(5)
            attempts[count] = [at - began for at in app.app.calls]
            flights = len([event for event in one.events if getattr(event, "outcome", "") == "unavailable"])
            # One for each of the app's own failures, besides.
            assert flights <= (count + 1) * len(app.app.calls)
        assert [] == app.tenants.calls
    for calls in attempts.values():
        pauses = [later - earlier for earlier, later in pairwise(calls)]
        assert 8 <= len(calls) <= 12
        assert all(0.75 * 2**row <= pause for row, pause in enumerate(pauses) if pause < 225)


async def test_what_its_own_provider_refuses_has_pauses_as_ever(clock: ManualClock) -> None:
    """They grow over what was passed on in between."""
    app = App(clock)
    async with Instance(clock) as one:
        entry = one.entry(app.tenant())
        await fails(one, app.tenant(), 300, clock=clock)
        await one.sync.hand_in(one.entry(app.ticket), TICKET)
        app.tenants.fails(TokenUnavailable("no such tenant"))
        for count in range(1, 4):
            for _ in range(3):
                with pytest.raises(TokenUnavailable, match="no such tenant"):
                    await one.manager.get(entry)
            assert count == len(app.tenants.calls)
            clock.advance(2.0**count)
        await one.sync.invalidate_current(one.entry(app.token))
        app.app.fails(TokenUnavailable("hand it in"))
        await fails(one, app.tenant(), 60, clock=clock, every=20)
        app.app.answer = app.app.new
        app.tenants.fails(TokenUnavailable("no such tenant"))
        clock.advance(300)
        with pytest.raises(TokenUnavailable, match="no such tenant") as info:
            await one.manager.get(entry)
        assert info.value.retry_after is not None
        assert 6 <= info.value.retry_after <= 8


async def test_a_credential_that_the_other_one_is_refused_is_told_as_such(clock: ManualClock) -> None:
    """With its code. Redis is told by the one who was refused, and of nobody else."""
    app = App(clock)
    app.asked.fails(CredentialRejected("the secret is wrong", code="10014"))
    redis = MemoryRedis(clock)
    async with Instance(clock, store=MemoryStore(redis)) as one:
        for _ in range(3):
            with pytest.raises(CredentialRejected) as info:
                await one.manager.get(one.entry(app.tenant()))
            assert "10014" == info.value.code
    assert [keys_of(app.ticket)] == [keys for keys, kind in redis.data if kind == "note"]


async def test_another_instance_in_its_pause_takes_what_was_handed_in(clock: ManualClock) -> None:
    """Within a second of the next request, for one look into Redis a second, however many ask."""
    app, redis = App(clock), MemoryRedis(clock)
    store = CountingStore(redis)
    async with Instance(clock, store=MemoryStore(redis)) as one, Instance(clock, store=store) as other:
        for _ in range(10):
            await fails(other, app.tenant(), 90, clock=clock)
        store.counted.clear()
        for number in range(100):
            with pytest.raises(TokenUnavailable, match="hand it in"):
                await other.manager.get(other.entry(app.tenant(str(number % 10))))
            clock.advance(0.1)
            await settle(5)
        assert store.counted["read", keys_of(app.ticket)] <= 12
        asked = len(app.asked.calls)
        await one.sync.hand_in(one.entry(app.ticket), TICKET)
        clock.advance(1.0)
        with pytest.raises(TokenUnavailable, match="hand it in"):
            await other.manager.get(other.entry(app.tenant()))
        await settle()
        assert (await other.manager.get(other.entry(app.tenant()))).value
        assert asked == len(app.asked.calls)


async def test_the_one_that_all_wait_for_is_not_evicted(clock: ManualClock) -> None:
    """However many tenants come meanwhile: each of them uses it."""
    app = App(clock)
    async with Instance(clock, limits=Limits(tokens=5)) as one:
        for number in range(50):
            await fails(one, app.tenant(str(number)), 1, clock=clock)
        await one.sync.hand_in(one.entry(app.ticket), TICKET)
        assert (await one.manager.get(one.entry(app.tenant("49")))).value
    assert len(app.asked.calls) <= 7


async def test_an_error_that_was_passed_on_can_be_sent_to_another_process(clock: ManualClock) -> None:
    """Without what only this process has."""
    errors: list[TokenUnavailable] = []

    class Keeping(Needy):
        __slots__ = ()

        async def fetch(self, http: TokenHTTP) -> Grant:
            try:
                return await super().fetch(http)
            except TokenUnavailable as error:
                errors.append(error)
                raise

    app = App(clock)
    async with Instance(clock) as one:
        await fails(one, Keeping(app.tenants, app.ticket), 1, clock=clock)
    again = pickle.loads(pickle.dumps(errors[0]))
    assert (str(errors[0]), errors[0].retry_after, None) == (str(again), again.retry_after, again._cause)


async def test_a_look_that_finds_nothing_leaves_the_pause_as_it_is(clock: ManualClock) -> None:
    """Nor does one while Redis is away, and none goes on after closing."""
    app, redis = App(clock), MemoryRedis(clock)
    app.asked.fails(TokenUnavailable("hand it in", retry_after=1_000.0))
    async with Instance(clock, store=MemoryStore(redis)) as one:
        await fails(one, app.ticket, 30, clock=clock)
        redis.up = False
        asked = len(app.asked.calls)
        failure = one.entry(app.ticket).failure
        assert failure is not None
        clock.advance(1.0)
        for _ in range(3):
            with pytest.raises(TokenUnavailable, match="hand it in"):
                await one.manager.get(one.entry(app.ticket))
        await settle()
        assert (asked, failure) == (len(app.asked.calls), one.entry(app.ticket).failure)
    assert 0 == clock.sleepers
