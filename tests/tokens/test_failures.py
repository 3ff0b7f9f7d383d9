"""A provider that fails is asked less, not more, and a valid token is still served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math

import pytest

from tests.tokens.instance import Instance, settle
from tests.tokens.providers import Endpoint, ScriptedProvider
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.testing import ManualClock
from tokenmw.tokens.failures import Failure
from tokenmw.values import Grant


async def test_a_failing_provider_is_asked_less_and_the_old_token_is_served(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """In half an hour of failures, a provider is asked about a dozen times, and every request gets its token."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        first = await instance.manager.get(entry)
        clock.advance(7200 - 1800)
        endpoint.fails(TokenUnavailable("busy"))
        for _ in range(1780):
            assert first is instance.manager.fresh(entry)
            await settle(5)
            clock.advance(1)
        attempts = len(endpoint.calls) - 1
        assert 8 <= attempts <= 16
        waits = [later - earlier for earlier, later in zip(endpoint.calls[1:], endpoint.calls[2:], strict=False)]
        assert max(waits) <= 302
        assert waits[-1] > 20 * waits[0]


async def test_without_a_token_the_failure_is_raised_immediately_during_the_backoff(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """Requests during the backoff get it without a request to the provider, and each gets its own exception."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.fails(CredentialRejected("the secret is wrong", code="invalid_client"))
        with pytest.raises(CredentialRejected) as first:
            await instance.manager.get(entry)
        with pytest.raises(CredentialRejected) as second:
            await instance.manager.get(entry)
        assert first.value is not second.value
        assert "invalid_client" == second.value.code
        assert 1 == len(endpoint.calls)
        assert 22 < (second.value.retry_after or 0) <= 30
        clock.advance(31)
        endpoint.answer = endpoint.new
        assert "token-1" == (await instance.manager.get(entry)).value


async def test_retry_after_is_obeyed(clock: ManualClock, endpoint: Endpoint) -> None:
    """A provider's Retry-After is the backoff, at most a tenth longer and up to an hour, also after other failures."""
    async with Instance(clock) as instance:
        for retry_after, expected in ((5.0, 5.0), (120.0, 120.0), (86_400.0, 3600.0)):
            entry = instance.entry(ScriptedProvider(endpoint, secret=str(retry_after)))
            endpoint.fails(TokenUnavailable("503", said=True))
            for _ in range(8):
                with pytest.raises(TokenUnavailable, match="503"):
                    await instance.manager.get(entry)
                clock.advance(300)
            endpoint.fails(TokenUnavailable("429", retry_after=retry_after, said=True))
            with pytest.raises(TokenUnavailable, match="429") as info:
                await instance.manager.get(entry)
            wait = info.value.retry_after
            assert wait is not None
            assert expected <= wait <= min(1.1 * expected, 3600.0)
            assert {"Retry-After": str(math.ceil(wait))} == info.value.headers


async def test_a_new_secret_is_not_blocked_by_the_old_ones_failure(clock: ManualClock, endpoint: Endpoint) -> None:
    """A changed secret is another credential, with an entry of its own."""
    async with Instance(clock) as instance:
        endpoint.fails(CredentialRejected("the secret is wrong"))
        with pytest.raises(CredentialRejected):
            await instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret="old")))
        endpoint.answer = endpoint.new
        assert "token-1" == (await instance.manager.get(instance.entry(ScriptedProvider(endpoint, secret="new")))).value


@pytest.mark.parametrize(
    "error", [RuntimeError("secret-canary"), ValueError("secret-canary"), KeyError("secret-canary")]
)
async def test_an_exception_in_a_providers_code_is_a_failure_without_its_text(
    clock: ManualClock, endpoint: Endpoint, error: Exception
) -> None:
    """The type of a foreign exception is named, and its text is not shown: it might hold a secret."""
    async with Instance(clock) as instance:
        endpoint.fails(error)
        with pytest.raises(TokenUnavailable) as info:
            await instance.manager.get(instance.entry(ScriptedProvider(endpoint)))
        assert type(error).__name__ in str(info.value)
        assert "canary" not in f"{info.value}{info.value!r}{info.value.__cause__}{info.value.__context__}"


async def test_a_provider_that_hangs_fails_after_fetch_seconds(clock: ManualClock, endpoint: Endpoint) -> None:
    """The waiting request gets the failure after 5 s, and no task is left."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.takes(1e6)
        waiting = asyncio.create_task(instance.manager.get(entry))
        await settle()
        await clock.elapse(4.9)
        assert not waiting.done()
        await clock.elapse(0.2)
        with pytest.raises(TokenUnavailable, match="did not answer within 5 s"):
            await waiting
        assert 0 == clock.sleepers


async def test_a_token_that_expires_before_it_arrives_is_a_failure(clock: ManualClock, endpoint: Endpoint) -> None:
    """Its lifetime is counted from when the request was sent."""
    async with Instance(clock) as instance:
        endpoint.lifetime = 3.0
        endpoint.takes(4.0)
        waiting = asyncio.create_task(instance.manager.get(instance.entry(ScriptedProvider(endpoint))))
        await settle()
        await clock.elapse(4.0)
        with pytest.raises(TokenUnavailable, match="already expired"):
            await waiting


async def test_injection_waits_only_for_a_first_refresh_and_only_inject_seconds(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """A route that may not need the token is not delayed for long by a provider that hangs."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.takes(4.0)
        waiting = asyncio.create_task(instance.manager.get_for_injection(entry))
        await settle()
        await clock.elapse(2.9)
        assert not waiting.done()
        await clock.elapse(0.2)
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            await waiting
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            await instance.manager.get_for_injection(entry)
        await clock.elapse(1.0)
        assert "token-1" == (await instance.manager.get_for_injection(entry)).value


async def test_after_a_failure_injection_never_waits(clock: ManualClock, endpoint: Endpoint) -> None:
    """New attempts are made in the background, and the last failure is raised."""
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.fails(TokenUnavailable("busy"))
        with pytest.raises(TokenUnavailable, match="busy"):
            await instance.manager.get_for_injection(entry)
        endpoint.takes(4.0)
        clock.advance(2)
        with pytest.raises(TokenUnavailable, match="busy"):
            await asyncio.wait_for(instance.manager.get_for_injection(entry), 1)
        await settle()
        assert 2 == len(endpoint.calls)
        await clock.elapse(4.0)
        assert "token-1" == (await instance.manager.get_for_injection(entry)).value


async def test_the_failures_of_a_rarely_used_credential_are_counted(clock: ManualClock, endpoint: Endpoint) -> None:
    """Housekeeping keeps a failure beyond its backoff: else each request would wait for a provider that hangs."""
    async with Instance(clock) as instance:
        provider = ScriptedProvider(endpoint)
        endpoint.takes(1e6)
        waiting = asyncio.create_task(instance.manager.get_for_injection(instance.entry(provider)))
        await settle()
        await clock.elapse(10)
        with pytest.raises(TokenUnavailable, match="still being fetched"):
            await waiting
        for _ in range(170):
            instance.entries.purge()
            with pytest.raises(TokenUnavailable, match="did not answer within 5 s"):
                await asyncio.wait_for(instance.manager.get_for_injection(instance.entry(provider)), 10)
            await clock.elapse(10)
        failure = instance.entry(provider).failure
        assert failure is not None
        assert 170 <= failure.count == len(endpoint.calls)
        await clock.elapse(2000)
        instance.entries.purge()
        assert [] == list(instance.entries)


@pytest.mark.parametrize("answer", [None, "t", ("t", 5), asyncio.CancelledError()])
async def test_a_fetch_that_returns_no_grant_is_a_failure_with_a_backoff(
    clock: ManualClock, endpoint: Endpoint, answer: object
) -> None:
    """The error names what was returned instead, and a hundred requests cause one fetch."""

    async def wrong() -> Grant:
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]

    endpoint.answer = wrong
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        for _ in range(100):
            with pytest.raises(TokenUnavailable, match=r"cancelled|Grant"):
                await instance.manager.get(entry)
    assert 1 == len(endpoint.calls)


def test_an_extra_that_is_not_json_is_refused_when_the_grant_is_made() -> None:
    """It is refused without Redis as well, so that adding Redis later does not break a provider."""
    with pytest.raises(TokenUnavailable, match="extra"):
        Grant("t", expires_in=60, extra={"scopes": {"a", "b"}})


async def test_a_background_refresh_that_finds_a_rejected_credential_raises_nothing(
    clock: ManualClock, endpoint: Endpoint
) -> None:
    """A refresh may fail, in an overlapping runtime, between the request for another one and its start."""
    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))
    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        instance.manager.refresh_soon(entry)
        entry.failure = Failure.from_error(CredentialRejected("wrong secret"), before=None, now=clock.monotonic())
        await settle()
    assert [] == reports
    assert [] == endpoint.calls


async def test_a_fetch_that_ignores_its_cancellation_reports_nothing_later(
    clock: ManualClock, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises after the time limit is not logged by the event loop: the text may hold the secret."""
    goes_on, over = asyncio.Event(), asyncio.Event()

    async def stubborn() -> Grant:
        while not goes_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await goes_on.wait()
        over.set()
        raise LookupError("app_secret=pa55word")

    async with Instance(clock) as instance:
        entry = instance.entry(ScriptedProvider(endpoint))
        endpoint.answer = stubborn
        waiting = asyncio.ensure_future(instance.manager.get(entry))
        await settle(20)
        clock.advance(5.1)
        with pytest.raises(TokenUnavailable, match="within 5 s"):
            await waiting
        goes_on.set()
        await over.wait()
        await settle(5)
        gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
