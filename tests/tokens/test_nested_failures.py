"""A failure that was passed on from another credential has no backoff of its own, and ends with that credential's."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from itertools import pairwise

import pytest

from tests.tokens.instance import Instance, keys_of, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.providers import DependentProvider, Endpoint, ScriptedProvider
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers.base import Provider
from tokenmw.providers.http import TokenHTTP
from tokenmw.redis.token_store import Found, TokenKeys
from tokenmw.testing import ManualClock
from tokenmw.values import Grant

TICKET = Grant("ticket", expires_in=86_400.0)


class CountingStore(MemoryStore):
    """Counts the reads that reach Redis, by key."""

    def __init__(self, server: MemoryRedis) -> None:
        super().__init__(server)
        self.counted: Counter[tuple[str, TokenKeys]] = Counter()

    async def read(self, keys: TokenKeys, /) -> tuple[Found | None, int]:
        self.counted["read", keys] += 1
        return await super().read(keys)


class App:
    """A ticket that is handed in, an app whose token needs it, and tenants whose tokens need the app's."""

    def __init__(self, clock: ManualClock) -> None:
        self.asked, self.app, self.tenants = Endpoint(clock), Endpoint(clock), Endpoint(clock)
        self.asked.fails(TokenUnavailable("hand it in"))
        self.ticket = ScriptedProvider(self.asked)
        self.token = DependentProvider(self.app, self.ticket)

    def tenant(self, name: str = "one") -> DependentProvider:
        return DependentProvider(self.tenants, self.token, secret=name)


async def fails(instance: Instance, provider: Provider, seconds: int, *, clock: ManualClock, every: int = 1) -> None:
    """Send a request every `every` seconds, for `seconds`; all of them fail."""
    for _ in range(0, seconds, every):
        with pytest.raises(TokenUnavailable, match="hand it in"):
            await instance.manager.get(instance.entry(provider))
        clock.advance(every)
        await settle(10)


@pytest.mark.parametrize("seconds", [1, 5, 60, 600, 1200])
async def test_the_other_credentials_token_ends_the_failure_immediately(clock: ManualClock, seconds: int) -> None:
    """However long the ticket was missing, the next request after it gets the tenant's token."""
    app = App(clock)
    async with Instance(clock) as instance:
        await fails(instance, app.tenant(), seconds, clock=clock)
        await instance.sync.hand_in(instance.entry(app.ticket), TICKET)
        assert (await instance.manager.get(instance.entry(app.tenant()))).value
    assert (1, 1) == (len(app.app.calls), len(app.tenants.calls))
    assert len(app.asked.calls) <= 4 + seconds / 3


async def test_a_nested_provider_that_hangs_is_not_counted_against_the_outer_one(clock: ManualClock) -> None:
    """The fetch stops waiting before it times out itself, so the error names the provider that hangs."""
    app = App(clock)
    app.asked.takes(1e6)
    async with Instance(clock) as instance:
        tenant = instance.entry(app.tenant())
        for _ in range(40):
            waiting = asyncio.create_task(instance.manager.get(tenant))
            await clock.elapse(10.0)
            with pytest.raises(TokenUnavailable, match=r"p: no valid token: dependent: .*(still being|did not answer)"):
                await waiting
            assert tenant.failure is not None
            assert 0 == tenant.failure.count
        assert len(app.asked.calls) <= 40
        await instance.sync.hand_in(instance.entry(app.ticket), TICKET)
        assert (await instance.manager.get(tenant)).value
    assert 0 == clock.sleepers


async def test_retry_after_is_that_of_the_other_credential(clock: ManualClock) -> None:
    """A client that obeys it comes back when that credential's backoff has ended."""
    app = App(clock)
    app.asked.fails(TokenUnavailable("hand it in", retry_after=50.0))
    async with Instance(clock) as instance:
        await fails(instance, app.tenant(), 10, clock=clock)
        with pytest.raises(TokenUnavailable) as info:
            await instance.manager.get(instance.entry(app.tenant()))
    assert info.value.headers is not None
    assert 40 <= int(info.value.headers["Retry-After"]) <= 45


async def test_many_tenants_ask_a_failing_app_no_more_often_than_one(clock: ManualClock) -> None:
    """The app is probed every 3 to 5 s, and in between no tenant causes a request or a refresh."""
    attempts: dict[int, list[float]] = {}
    for count in (1, 40):
        app = App(clock)
        app.token = DependentProvider(app.app, ScriptedProvider(Endpoint(clock)))
        app.app.fails(TokenUnavailable("busy", said=True))
        async with Instance(clock, store=MemoryStore(MemoryRedis(clock))) as instance:
            started = clock.monotonic()
            tenants = [instance.entry(app.tenant(str(number))) for number in range(count)]
            for _ in range(600):
                for tenant in tenants:
                    with pytest.raises(TokenUnavailable, match="busy"):
                        await instance.manager.get(tenant)
                    assert tenant.failure is not None
                    assert 0 == tenant.failure.count
                clock.advance(1)
                await settle(5)
            attempts[count] = [at - started for at in app.app.calls]
            flights = len([event for event in instance.events if getattr(event, "outcome", "") == "unavailable"])
            # One for each tenant and for the app itself, at each failure of the app.
            assert flights <= (count + 1) * len(app.app.calls)
        assert [] == app.tenants.calls
    for calls in attempts.values():
        waits = [later - earlier for earlier, later in pairwise(calls)]
        assert 120 <= len(calls) <= 204
        assert all(min(0.75 * 2**row, 3.0) <= wait <= 6.0 for row, wait in enumerate(waits))


async def test_failures_of_its_own_provider_back_off_as_usual(clock: ManualClock) -> None:
    """Their count goes on over failures that were passed on in between."""
    app = App(clock)
    async with Instance(clock) as instance:
        entry = instance.entry(app.tenant())
        await fails(instance, app.tenant(), 300, clock=clock)
        await instance.sync.hand_in(instance.entry(app.ticket), TICKET)
        app.tenants.fails(TokenUnavailable("no such tenant"))
        for count in range(1, 4):
            for _ in range(3):
                with pytest.raises(TokenUnavailable, match="no such tenant"):
                    await instance.manager.get(entry)
            assert count == len(app.tenants.calls)
            clock.advance(2.0**count)
        await instance.sync.invalidate_current(instance.entry(app.token))
        app.app.fails(TokenUnavailable("hand it in"))
        await fails(instance, app.tenant(), 60, clock=clock, every=20)
        app.app.answer = app.app.new
        app.tenants.fails(TokenUnavailable("no such tenant"))
        clock.advance(300)
        with pytest.raises(TokenUnavailable, match="no such tenant") as info:
            await instance.manager.get(entry)
        assert info.value.retry_after is not None
        assert 3 <= info.value.retry_after <= 5
        assert entry.failure is not None
        assert 4 == entry.failure.count


async def test_the_other_credentials_rejection_is_raised_with_its_code(clock: ManualClock) -> None:
    """Only the credential that was rejected writes a failure note."""
    app = App(clock)
    app.asked.fails(CredentialRejected("the secret is wrong", code="10014"))
    redis = MemoryRedis(clock)
    async with Instance(clock, store=MemoryStore(redis)) as instance:
        for _ in range(3):
            with pytest.raises(CredentialRejected) as info:
                await instance.manager.get(instance.entry(app.tenant()))
            assert "10014" == info.value.code
    assert [keys_of(app.ticket)] == [keys for keys, kind in redis.data if kind == "note"]


async def test_another_instance_in_backoff_adopts_a_token_that_was_handed_in(clock: ManualClock) -> None:
    """It does so within a second of the next request, for one read of Redis a second, whatever the traffic."""
    app, redis = App(clock), MemoryRedis(clock)
    app.asked.fails(TokenUnavailable("hand it in", retry_after=1_000.0))
    store = CountingStore(redis)
    async with Instance(clock, store=MemoryStore(redis)) as instance, Instance(clock, store=store) as other:
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
        await instance.sync.hand_in(instance.entry(app.ticket), TICKET)
        clock.advance(1.0)
        with pytest.raises(TokenUnavailable, match="hand it in"):
            await other.manager.get(other.entry(app.tenant()))
        await settle()
        assert (await other.manager.get(other.entry(app.tenant()))).value
        assert asked == len(app.asked.calls)


async def test_an_entry_that_others_wait_for_is_not_evicted(clock: ManualClock) -> None:
    """Each tenant that needs the ticket counts as a use of its entry, however many tenants there are."""
    app = App(clock)
    async with Instance(clock, limits=Limits(tokens=5)) as instance:
        for number in range(50):
            await fails(instance, app.tenant(str(number)), 1, clock=clock)
        await instance.sync.hand_in(instance.entry(app.ticket), TICKET)
        assert (await instance.manager.get(instance.entry(app.tenant("49")))).value
    assert len(app.asked.calls) <= 20


async def test_an_error_that_was_passed_on_can_be_pickled(clock: ManualClock) -> None:
    """Its cause, which only this process has, is left out."""
    errors: list[TokenUnavailable] = []

    class RecordingProvider(DependentProvider):
        __slots__ = ()

        async def fetch(self, http: TokenHTTP) -> Grant:
            try:
                return await super().fetch(http)
            except TokenUnavailable as error:
                errors.append(error)
                raise

    app = App(clock)
    async with Instance(clock) as instance:
        await fails(instance, RecordingProvider(app.tenants, app.ticket), 1, clock=clock)
    unpickled = pickle.loads(pickle.dumps(errors[0]))
    assert (str(errors[0]), errors[0].retry_after, None) == (str(unpickled), unpickled.retry_after, unpickled._cause)


async def test_a_read_of_redis_that_finds_nothing_leaves_the_backoff_as_it_is(clock: ManualClock) -> None:
    """The same holds while Redis is unavailable, and no read goes on after closing."""
    app, redis = App(clock), MemoryRedis(clock)
    app.asked.fails(TokenUnavailable("hand it in", retry_after=1_000.0))
    async with Instance(clock, store=MemoryStore(redis)) as instance:
        await fails(instance, app.ticket, 30, clock=clock)
        redis.up = False
        asked = len(app.asked.calls)
        failure = instance.entry(app.ticket).failure
        assert failure is not None
        clock.advance(1.0)
        for _ in range(3):
            with pytest.raises(TokenUnavailable, match="hand it in"):
                await instance.manager.get(instance.entry(app.ticket))
        await settle()
        assert (asked, failure) == (len(app.asked.calls), instance.entry(app.ticket).failure)
    assert 0 == clock.sleepers
