"""What fails for the client fails for all callers: one request finds out, and not one for each caller's token."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tests.tokens.providers import Endpoint, ScriptedProvider
from tokenmw.errors import CredentialRejected, RequestError, SubjectRefused, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers.subject import SubjectProvider

if TYPE_CHECKING:
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.testing import ManualClock
    from tokenmw.values import Grant

CALLERS = 1_000


class Exchange(SubjectProvider):
    """Exchanges a subject's token at an endpoint, for a client."""

    __slots__ = ("client", "endpoint")
    kind = "exchange"

    def __init__(
        self, endpoint: Endpoint, subject: str, *, client: str = "shop", expires_at: float | None = None
    ) -> None:
        self.endpoint = endpoint
        self.client = client
        self._set_subject(subject, expires_at=expires_at)

    def identity(self) -> tuple[object, ...]:
        return (id(self.endpoint), self.client, self._subject_identity())

    async def fetch(self, http: TokenHTTP) -> Grant:
        self._check_subject(now=self.endpoint.clock.time())
        self.endpoint.calls.append(self.endpoint.clock.monotonic())
        return await self.endpoint.answer()


async def outcome(instance: Instance, provider: Exchange) -> str:
    """Return what a request of a caller gets: a token, or the class of its error."""
    try:
        return (await instance.manager.get(instance.entry(provider, "orders"))).value
    except RequestError as error:
        return type(error).__name__


async def outcomes(instance: Instance, endpoint: Endpoint, *, of: int = CALLERS, first: int = 0) -> list[str]:
    """Return what callers get, one after the other."""
    return [await outcome(instance, Exchange(endpoint, f"s-{number}")) for number in range(first, first + of)]


CERTAIN = [
    (TokenUnavailable("busy", retry_after=60.0, said=True), 1),
    (CredentialRejected("wrong secret", code="invalid_client"), 1),
    (CredentialRejected("not for this grant", code="unauthorized_client"), 1),
    (CredentialRejected("no such grant", code="unsupported_grant_type"), 1),
]


def refused() -> TokenUnavailable:
    """Return the failure of a refused connection, as `TokenHTTP` raises it."""
    error = TokenUnavailable("idp refuses connections")
    error.__cause__ = ConnectionRefusedError(111, "refused")
    return error


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("error", "expected"), [*CERTAIN, (refused(), 1), (TokenUnavailable("500", said=True), 5)])
async def test_one_request_finds_out_for_all_callers(
    clock: ManualClock, endpoint: Endpoint, error: RequestError, expected: int, *, shared: bool
) -> None:
    """A failure that may be due to one caller's token holds for all after five callers in a row."""
    endpoint.fails(error)
    store = MemoryStore(MemoryRedis(clock)) if shared else None
    async with Instance(clock, store=store) as instance:
        assert {type(error).__name__} == set(await outcomes(instance, endpoint))
        assert expected == len(endpoint.calls)
        assert {type(error).__name__} == set(await outcomes(instance, endpoint))
        assert expected == len(endpoint.calls)


@pytest.mark.parametrize(("error", "at_once"), [(CERTAIN[0][0], 1), (TokenUnavailable("500", said=True), 5)])
async def test_a_failing_client_is_probed_by_few_callers(
    clock: ManualClock, endpoint: Endpoint, error: RequestError, at_once: int
) -> None:
    """When the backoff is over, all callers come back in the same moment."""
    endpoint.fails(error)
    async with Instance(clock) as instance:
        await outcomes(instance, endpoint)
        clock.advance(70.0)
        endpoint.calls.clear()

        async def fail_later() -> Grant:
            await clock.sleep(1.0)
            raise error

        endpoint.answer = fail_later
        tasks = [asyncio.create_task(outcome(instance, Exchange(endpoint, f"s-{one}"))) for one in range(CALLERS)]
        await settle(20)
        assert at_once == len(endpoint.calls)
        await clock.elapse(1.0)
        assert {"TokenUnavailable"} == set(await asyncio.gather(*tasks))
        assert at_once == len(endpoint.calls)


async def test_callers_that_fail_together_are_one_failure(clock: ManualClock, endpoint: Endpoint) -> None:
    """The backoff does not grow with their number."""

    async def reject_later() -> Grant:
        await clock.sleep(1.0)
        raise CredentialRejected("wrong secret", code="invalid_client")

    endpoint.answer = reject_later
    async with Instance(clock, limits=Limits(flights=CALLERS)) as instance:
        tasks = [asyncio.create_task(outcome(instance, Exchange(endpoint, f"s-{one}"))) for one in range(CALLERS)]
        await settle(20)
        await clock.elapse(1.0)
        assert {"CredentialRejected"} == set(await asyncio.gather(*tasks))
        with pytest.raises(CredentialRejected) as caught:
            await instance.manager.get(instance.entry(Exchange(endpoint, "another"), "orders"))
        assert caught.value.retry_after is not None
        assert 22.0 <= caught.value.retry_after <= 30.0
        assert "orders: the provider rejects the credential: wrong secret" == str(caught.value)
        assert "invalid_client" == caught.value.code


async def test_the_first_token_serves_all_callers_again(clock: ManualClock, endpoint: Endpoint) -> None:
    """No caller waits for a backoff of its own."""
    endpoint.fails(TokenUnavailable("busy", retry_after=60.0, said=True))
    async with Instance(clock, store=MemoryStore(MemoryRedis(clock))) as instance:
        await outcomes(instance, endpoint)
        clock.advance(67.0)
        endpoint.answer = endpoint.new
        assert CALLERS == len(set(await outcomes(instance, endpoint)))
    assert CALLERS + 1 == len(endpoint.calls)


async def test_a_refused_caller_is_refused_alone(clock: ManualClock, endpoint: Endpoint) -> None:
    """The server's refusal of one token says nothing of the others."""
    async with Instance(clock) as instance:
        for number in range(50):
            endpoint.fails(SubjectRefused("expired", code="invalid_grant"))
            assert "SubjectRefused" == await outcome(instance, Exchange(endpoint, f"bad-{number}"))
        endpoint.answer = endpoint.new
        assert 50 == len(set(await outcomes(instance, endpoint, of=50)))
    assert 100 == len(endpoint.calls)


async def test_a_token_that_breaks_the_server_stops_no_other_caller(clock: ManualClock, endpoint: Endpoint) -> None:
    """Its failures in a row count once."""
    bad, good = Exchange(endpoint, "bad"), [Exchange(endpoint, f"good-{number}") for number in range(20)]
    async with Instance(clock) as instance:
        for one in good:
            endpoint.fails(TokenUnavailable("500", said=True))
            assert "TokenUnavailable" == await outcome(instance, bad)
            endpoint.answer = endpoint.new
            assert (await outcome(instance, one)).startswith("token-")
            clock.advance(10.0)
        for _ in range(20):
            endpoint.fails(TokenUnavailable("500", said=True))
            assert "TokenUnavailable" == await outcome(instance, bad)
            clock.advance(10.0)
        endpoint.answer = endpoint.new
        assert (await outcome(instance, Exchange(endpoint, "one more"))).startswith("token-")


@pytest.mark.parametrize("probe", ["expired", "refused"])
async def test_a_caller_that_is_refused_does_not_keep_the_others_waiting(
    clock: ManualClock, endpoint: Endpoint, probe: str
) -> None:
    """If its token has expired, the server was not asked, and the next caller asks."""
    endpoint.fails(TokenUnavailable("busy", retry_after=60.0, said=True))
    async with Instance(clock) as instance:
        await outcomes(instance, endpoint, of=5)
        clock.advance(67.0)
        endpoint.fails(SubjectRefused("expired", code="invalid_grant"))
        expires_at = clock.time() - 1 if probe == "expired" else None
        assert "SubjectRefused" == await outcome(instance, Exchange(endpoint, "late", expires_at=expires_at))
        endpoint.answer = endpoint.new
        assert (await outcome(instance, Exchange(endpoint, "good"))).startswith("token-")


async def test_another_client_is_not_concerned(clock: ManualClock, endpoint: Endpoint) -> None:
    """Each configuration has a backoff of its own."""
    endpoint.fails(CredentialRejected("wrong secret", code="invalid_client"))
    async with Instance(clock) as instance:
        await outcomes(instance, endpoint, of=10)
        endpoint.answer = endpoint.new
        assert (await outcome(instance, Exchange(endpoint, "s-1", client="other"))).startswith("token-")


async def test_a_token_in_redis_is_used_in_a_backoff(clock: ManualClock, endpoint: Endpoint) -> None:
    """An instance whose network fails serves the callers whose tokens others have fetched."""
    redis = MemoryRedis(clock)
    async with Instance(clock, store=MemoryStore(redis)) as healthy, Instance(clock, store=MemoryStore(redis)) as sick:
        token = await outcome(healthy, Exchange(endpoint, "ada"))
        endpoint.fails(refused())
        await outcomes(sick, endpoint, of=10)
        assert token == await outcome(sick, Exchange(endpoint, "ada"))


async def test_an_invalidation_ends_the_backoff_of_the_client(clock: ManualClock, endpoint: Endpoint) -> None:
    """An operator who has corrected the client at the server does not wait."""
    endpoint.fails(CredentialRejected("wrong secret", code="invalid_client"))
    async with Instance(clock) as instance:
        await outcomes(instance, endpoint, of=10)
        await instance.sync.invalidate_current(instance.entry(Exchange(endpoint, "s-1"), "orders"))
        endpoint.answer = endpoint.new
        assert (await outcome(instance, Exchange(endpoint, "s-2"))).startswith("token-")


async def test_a_failure_of_the_client_is_logged_once(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """However many callers there are; and the line that says that it is over waits for a token."""
    caplog.set_level(logging.WARNING, logger="tokenmw")
    endpoint.fails(TokenUnavailable("busy", retry_after=60.0, said=True))
    async with Instance(clock) as instance:
        await outcomes(instance, endpoint)
        assert ["tokenmw: orders: no token: busy"] == [record.getMessage() for record in caplog.records]
        clock.advance(67.0)
        endpoint.answer = endpoint.new
        await outcomes(instance, endpoint)
    assert 2 == len(caplog.records)
    assert "orders: there is a token again after 67 s" in caplog.records[1].getMessage()


async def test_the_failures_of_clients_are_bounded(clock: ManualClock, endpoint: Endpoint) -> None:
    """They are kept as long as an entry of one of their callers."""

    async def reject() -> Grant:
        raise CredentialRejected("wrong secret", code="invalid_client")  # one object would keep each frame it passed

    endpoint.answer = reject
    async with Instance(clock, limits=Limits(subject_tokens=10)) as instance:
        for number in range(100):
            await outcome(instance, Exchange(endpoint, "s", client=f"client-{number}"))
        gc.collect()
        assert len(instance.entries._clients) <= 11
        clock.advance(100_000.0)
        instance.entries.purge()
        gc.collect()
        assert 0 == len(instance.entries._clients)


@pytest.mark.parametrize("shared", [False, True])
async def test_an_ambiguous_refusal_is_the_callers_once_another_was_served(
    clock: ManualClock, endpoint: Endpoint, *, shared: bool
) -> None:
    """Before that, five callers are: more of them would be signed out by a wrong option, which is a 503."""
    store = MemoryStore(MemoryRedis(clock)) if shared else None
    async with Instance(clock, store=store) as instance:
        endpoint.fails(SubjectRefused("idp refuses client_id=shop (invalid_request)", code="invalid_request"))
        assert {"SubjectRefused"} == set(await outcomes(instance, endpoint, of=5))
        assert {"TokenUnavailable"} == set(await outcomes(instance, endpoint, of=5, first=5))
        with pytest.raises(TokenUnavailable, match="5 callers were refused so and none was served, so the options may"):
            await instance.manager.get(instance.entry(Exchange(endpoint, "s-6"), "orders"))
        endpoint.answer = endpoint.new
        assert (await outcome(instance, Exchange(endpoint, "good"))).startswith("token-")
        endpoint.fails(SubjectRefused("idp refuses client_id=shop (invalid_request)", code="invalid_request"))
        assert {"SubjectRefused"} == set(await outcomes(instance, endpoint, of=20, first=20))


async def test_a_token_of_another_process_shows_that_the_options_are_right(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """It was exchanged with the same options."""
    redis = MemoryRedis(clock)
    async with Instance(clock, store=MemoryStore(redis)) as first, Instance(clock, store=MemoryStore(redis)) as second:
        assert await outcome(first, Exchange(endpoint, "good")) == await outcome(second, Exchange(endpoint, "good"))
        endpoint.fails(SubjectRefused("bad", code="invalid_request"))
        assert {"SubjectRefused"} == set(await outcomes(second, endpoint, of=10))


async def test_full_flights_are_logged_once_a_minute(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """With their number and the fix."""
    caplog.set_level(logging.WARNING, logger="tokenmw")
    endpoint.takes(1e6)
    async with Instance(clock, limits=Limits(flights=2)) as instance:
        waiting = [asyncio.create_task(outcome(instance, Exchange(endpoint, f"s-{one}"))) for one in range(2)]
        await settle()
        for number in range(10, 20):
            assert "TokenUnavailable" == await outcome(instance, Exchange(endpoint, f"s-{number}"))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        clock.advance(61.0)
        instance.log.flush()
    texts = [record.getMessage() for record in caplog.records if "Too many" in record.getMessage()]
    line = (
        "tokenmw: Too many tokens are being fetched from callers' own (Limits(flights=2)); requests for a further one "
        "get 503: find out which provider is slow, or raise the bound"
    )
    assert [line, f"{line} (8 similar messages suppressed in the last 61 s)"] == texts


@pytest.mark.parametrize("usable", [True, False])
async def test_an_evicted_token_in_use_is_logged(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, *, usable: bool
) -> None:
    """One that has expired makes room without a line."""
    caplog.set_level(logging.WARNING, logger="tokenmw")
    async with Instance(clock, limits=Limits(subject_tokens=3)) as instance:
        await outcomes(instance, endpoint, of=3)
        clock.advance(0.0 if usable else 10_000.0)
        await outcomes(instance, endpoint, of=3, first=3)
    texts = [record.getMessage() for record in caplog.records]
    assert usable == any("More tokens are in use than Limits(subject_tokens=3)" in text for text in texts)
    assert len(texts) == usable


@pytest.mark.parametrize("permanent_first", [True, False])
async def test_a_failure_that_becomes_permanent_is_logged_immediately(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, *, permanent_first: bool
) -> None:
    """Each of the two kinds has one line a minute, and there is one line when both are over."""
    caplog.set_level(logging.WARNING, logger="tokenmw")
    errors = [CredentialRejected("wrong secret", code="invalid_client"), TokenUnavailable("busy", said=True)]
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint), "crm")
        for _ in range(3):
            for error in errors if permanent_first else errors[::-1]:
                endpoint.fails(error)
                entry.failure = None
                with pytest.raises(RequestError):
                    await instance.manager.get(entry)
                clock.advance(1.0)
        entry.failure = None
        endpoint.answer = endpoint.new
        await instance.manager.get(entry)
        clock.advance(61.0)
        instance.log.flush()
    texts = [record.getMessage() for record in caplog.records]
    expected = ["tokenmw: crm: credential rejected: wrong secret", "tokenmw: crm: no token: busy"]
    assert [
        *(expected if permanent_first else expected[::-1]),
        "tokenmw: crm: there is a token again after 6 s (4 similar messages suppressed)",
    ] == texts
    assert {"provider:crm"} == {record.__dict__["tokenmw.kind"] for record in caplog.records}
