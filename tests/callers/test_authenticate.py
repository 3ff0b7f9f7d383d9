"""`authenticate` is called once at a time for a key, and whatever it does, each request gets a clear answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from tokenmw.callers.authenticate import Authenticator, RefusedKeys
from tokenmw.errors import APIKeyRefused, RequestError, SessionUnavailable
from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.testing import ManualClock

SCOPE: dict[str, Any] = {"type": "http", "headers": [(b"host", b"a.example")], "path": "/"}
SECRET = b"sk-live-7"


class ScriptedAuthenticate:
    """An `authenticate` whose answers a test sets.

    Attributes:
        keys: The API keys that it was called with.
        answer: What it returns, or raises if it is an exception.
        go: While it is not set, calls hang.
    """

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.answer: Any = "alice"
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, connection: HTTPConnection, key: str) -> object | None:
        self.keys.append(key)
        assert connection.headers["host"] == "a.example"
        await self.go.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        answer: object | None = self.answer
        return answer


@pytest.fixture
async def authenticate() -> ScriptedAuthenticate:
    """Return the program's `authenticate`."""
    return ScriptedAuthenticate()


@pytest.fixture
async def clock() -> ManualClock:
    """Return time that the test moves."""
    return ManualClock()


@pytest.fixture
async def make_authenticator(
    authenticate: ScriptedAuthenticate, clock: ManualClock
) -> AsyncGenerator[Callable[..., Authenticator]]:
    """Make authenticators, and close them after the test."""
    all_authenticators: list[Authenticator] = []

    def make(authenticate: Any = authenticate, **limits: Any) -> Authenticator:
        bounds = Limits(**limits)
        refused = RefusedKeys(limits=bounds, clock=clock)
        log = ThrottledLog(clock)
        all_authenticators.append(Authenticator(authenticate, refused=refused, limits=bounds, clock=clock, log=log))
        return all_authenticators[-1]

    yield make
    for authenticator in all_authenticators:
        await authenticator.close()


@pytest.mark.parametrize("answer", ["alice", True, {"tenant": 1}])
async def test_a_true_answer_is_the_caller(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate, answer: object
) -> None:
    """An acceptance is not cached, because a key may be revoked."""
    authenticate.answer = answer
    authenticator = make_authenticator()
    assert answer == await authenticator.caller(SCOPE, SECRET)
    assert answer == await authenticator.caller(SCOPE, SECRET)
    assert authenticate.keys == ["sk-live-7"] * 2


@pytest.mark.parametrize("answer", [None, False, 0, ""])
async def test_a_falsy_answer_refuses(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate, answer: object
) -> None:
    """`return key in KEYS` is the natural way to write it, and must not accept every key."""
    authenticate.answer = answer
    authenticator = make_authenticator()
    for _ in range(2):
        with pytest.raises(APIKeyRefused):
            await authenticator.caller(SCOPE, SECRET)
    assert ["sk-live-7"] == authenticate.keys


async def test_requests_with_one_key_share_one_call(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate
) -> None:
    """A hundred requests cause one call, which goes on if the first one is cancelled; another key has its own."""
    authenticator = make_authenticator()
    authenticate.go.clear()
    requests = [asyncio.create_task(authenticator.caller(SCOPE, SECRET)) for _ in range(100)]
    other = asyncio.create_task(authenticator.caller(SCOPE, b"other"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    requests[0].cancel()
    await asyncio.sleep(0)
    authenticate.go.set()
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["alice"] * 99
    assert await other == "alice"
    assert authenticate.keys == ["sk-live-7", "other"]


async def test_a_refusal_is_cached_for_five_seconds(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate, clock: ManualClock
) -> None:
    """A wrong key is a 401 and costs one call in that time."""
    authenticator = make_authenticator()
    authenticate.answer = None
    for _ in range(3):
        with pytest.raises(APIKeyRefused) as caught:
            await authenticator.caller(SCOPE, SECRET)
        assert (caught.value.status_code, (caught.value.headers or {})["WWW-Authenticate"]) == (401, "Bearer")
    assert len(authenticate.keys) == 1
    clock.advance(5.1)
    authenticator._refused.expire()
    authenticate.answer = "alice"
    assert await authenticator.caller(SCOPE, SECRET) == "alice"


@pytest.mark.parametrize("error", [ValueError("sk-live-7"), asyncio.CancelledError(), KeyError("sk-live-7")])
async def test_a_call_that_raises_is_a_503_and_not_cached(
    make_authenticator: Callable[..., Authenticator],
    authenticate: ScriptedAuthenticate,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    """Each request gets its own exception; the log has one line for all, and never the key."""
    caplog.set_level(logging.DEBUG)
    authenticator = make_authenticator()
    authenticate.answer = error
    requests = [asyncio.create_task(authenticator.caller(SCOPE, SECRET)) for _ in range(5)]
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert [SessionUnavailable] * 5 == [type(result) for result in results]
    assert len({id(result) for result in results}) == 5
    assert len(authenticate.keys) == 1
    assert [result for result in results if "sk-live" in str(result) or "sk-live" in repr(result)] == []
    if isinstance(error, Exception):
        assert len(caplog.records) == 1
    assert "sk-live" not in caplog.text
    authenticate.answer = "alice"
    assert await authenticator.caller(SCOPE, SECRET) == "alice"


@pytest.mark.parametrize(
    "error", [APIKeyRefused("Suspended.", challenge="Bearer realm=x"), SessionUnavailable("Later.", retry_after=9.0)]
)
async def test_our_errors_are_passed_on(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate, error: RequestError
) -> None:
    """`authenticate` may raise our errors itself, and each request gets a copy of what it raised."""
    authenticator = make_authenticator()
    authenticate.answer = error
    results = await asyncio.gather(*(authenticator.caller(SCOPE, SECRET) for _ in range(3)), return_exceptions=True)
    assert len({id(result) for result in results}) == 3
    for result in results:
        assert isinstance(result, type(error))
        assert (error.detail, error.headers, error.status_code) == (result.detail, result.headers, result.status_code)


async def test_a_call_that_hangs_makes_a_request_wait_for_wait_seconds(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate, clock: ManualClock
) -> None:
    """After that the request gets an error that asks it to try again."""
    authenticator = make_authenticator()
    authenticate.go.clear()
    request = asyncio.create_task(authenticator.caller(SCOPE, SECRET))
    await clock.elapse(11.9)
    assert not request.done()
    await clock.elapse(0.2)
    with pytest.raises(SessionUnavailable, match="in time"):
        await request


async def test_a_call_that_hangs_does_not_lock_its_key_out(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate
) -> None:
    """It is cancelled after `wait_seconds` even if no request waits any more, and the next request calls again."""
    authenticator = make_authenticator(fetch_seconds=0.01, lease_seconds=0.02, wait_seconds=0.05, authentications=1)
    authenticate.go.clear()
    request = asyncio.create_task(authenticator.caller(SCOPE, SECRET))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(SessionUnavailable):
        await authenticator.caller(SCOPE, b"no room while the other hangs")
    async with asyncio.timeout(5.0):
        while len(authenticator._calls):  # noqa: ASYNC110  a timeout inside ends it, without any event
            await asyncio.sleep(0.005)
    authenticate.go.set()
    assert await authenticator.caller(SCOPE, SECRET) == "alice"


async def test_calls_beyond_the_bound_are_refused(
    make_authenticator: Callable[..., Authenticator], authenticate: ScriptedAuthenticate
) -> None:
    """A flood of keys does not become a flood of calls, and `close` cancels those in progress."""
    authenticator = make_authenticator(authentications=2)
    authenticate.go.clear()
    in_progress = [asyncio.create_task(authenticator.caller(SCOPE, key)) for key in (b"1", b"2")]
    await asyncio.sleep(0)
    with pytest.raises(SessionUnavailable, match="now"):
        await authenticator.caller(SCOPE, b"3")
    await authenticator.close()
    results = await asyncio.gather(*in_progress, return_exceptions=True)
    assert [SessionUnavailable] * 2 == [type(result) for result in results]


async def test_a_timeout_of_authenticate_is_logged_with_its_bound(
    make_authenticator: Callable[..., Authenticator],
    authenticate: ScriptedAuthenticate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It raised nothing, so the line names the bound, and no place in this package."""
    authenticate.go.clear()
    with pytest.raises(SessionUnavailable):
        await make_authenticator(fetch_seconds=0.01, lease_seconds=0.02, wait_seconds=0.05).caller(SCOPE, SECRET)
    await asyncio.sleep(0.01)
    assert ["tokenmw: authenticate has not answered within 0.05 s (Limits(wait_seconds=…)); callers get 503"] == (
        caplog.messages
    )


async def test_a_cancelled_task_in_authenticate_is_an_error_of_the_program(
    make_authenticator: Callable[..., Authenticator],
    authenticate: ScriptedAuthenticate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller gets 503, and the log a line; the request is not cancelled."""
    authenticate.answer = asyncio.CancelledError()
    with pytest.raises(SessionUnavailable):
        await make_authenticator().caller(SCOPE, SECRET)
    (line,) = caplog.messages
    assert line.startswith(f"tokenmw: authenticate raised CancelledError at {__name__}:")


async def test_too_many_calls_at_once_are_logged(
    make_authenticator: Callable[..., Authenticator],
    authenticate: ScriptedAuthenticate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line names the bound, and the calls in progress go on."""
    authenticate.go.clear()
    authenticator = make_authenticator(authentications=1)
    first = asyncio.create_task(authenticator.caller(SCOPE, b"first"))
    await asyncio.sleep(0)
    with pytest.raises(SessionUnavailable):
        await authenticator.caller(SCOPE, SECRET)
    authenticate.go.set()
    assert "alice" == await first
    assert ["tokenmw: Too many API keys to check at once (Limits(authentications=1)); callers get 503"] == (
        caplog.messages
    )
