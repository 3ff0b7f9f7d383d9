"""`authenticate` finds the caller of a request, one call at a time for each key, before a session is made."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Scope

from tests.asgi_client import Exchange, answering, call
from tokenmw import TokenBroker, TokenMiddleware, session_id
from tokenmw.broker import STATE_KEY
from tokenmw.testing import ManualClock

KEY = (b"x-api-key", b"k-1")


class Directory:
    """An `authenticate` that knows two keys.

    Attributes:
        calls: How often it was called with each key.
        error: What it raises, if it is set.
        gate: While it is not set, calls hang.
    """

    def __init__(self) -> None:
        self.known = {"k-1": {"name": "one"}, "k-2": {"name": "two"}}
        self.calls: Counter[str] = Counter()
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, connection: HTTPConnection, key: str) -> object | None:
        """Return the caller of a key, or None."""
        assert "/" == connection.url.path
        self.calls[key] += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.known.get(key)


async def answer_caller(scope: Scope) -> Any:
    """Answer with the caller and the session id."""
    return [scope["state"]["caller"], scope["state"]["session_id"]]


@pytest.fixture
def directory() -> Directory:
    """Return the broker's `authenticate`."""
    return Directory()


@pytest.fixture
def clock() -> ManualClock:
    """Return the broker's time."""
    return ManualClock()


@pytest.fixture
async def broker(directory: Directory, clock: ManualClock) -> Any:
    """Open a broker that authenticates with the directory."""
    async with TokenBroker({}, authenticate=directory, clock=clock) as broker:
        yield broker


@pytest.fixture
def app(broker: TokenBroker) -> TokenMiddleware:
    """Make an application that answers with the caller and the session id."""
    return TokenMiddleware(answering(answer_caller), broker=broker)


async def test_the_caller_is_in_the_state(app: TokenMiddleware, broker: TokenBroker, directory: Directory) -> None:
    """An acceptance is not cached: each request with the key calls `authenticate`."""
    for calls in (1, 2):
        answer = await call(app, headers=[KEY])
        assert [{"name": "one"}, await broker.session_id("k-1")] == answer.json
        assert calls == directory.calls["k-1"]


async def test_without_a_key_authenticate_is_not_called(app: TokenMiddleware, directory: Directory) -> None:
    """The caller is None, and the session id is random."""
    caller, session = (await call(app)).json
    assert caller is None
    assert session != (await call(app)).json[1]
    assert not directory.calls


async def test_a_refusal_is_cached_for_five_seconds(
    app: TokenMiddleware, broker: TokenBroker, directory: Directory, clock: ManualClock
) -> None:
    """A refused key gets 401 and no session, and causes one call in that time."""
    for _ in range(3):
        assert 401 == (await call(app, headers=[(b"x-api-key", b"new")])).status
        clock.advance(1.5)
    assert 1 == directory.calls["new"]
    assert 0 == broker.status().sessions
    directory.known["new"] = {"name": "three"}
    clock.advance(1)
    assert "three" == (await call(app, headers=[(b"x-api-key", b"new")])).json[0]["name"]


async def test_an_exception_is_503_and_not_cached(
    app: TokenMiddleware, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of the exception is neither in the response nor in the log: it may hold a secret."""
    directory.error = LookupError("k-1 is not in postgres://user:s3cret@db")
    answer = await call(app, headers=[KEY])
    assert 503 == answer.status
    assert "retry-after" in answer.headers
    assert "s3cret" not in str(answer.json)
    assert "LookupError" in caplog.text
    assert "s3cret" not in caplog.text
    directory.error = None
    assert 200 == (await call(app, headers=[KEY])).status


async def test_one_call_for_a_key_at_a_time(app: TokenMiddleware, directory: Directory) -> None:
    """A hundred requests with one key cause one call, and another key does not wait for it."""
    directory.gate.clear()
    waiting = [asyncio.ensure_future(call(app, headers=[KEY])) for _ in range(100)]
    waiting.append(asyncio.ensure_future(call(app, headers=[(b"x-api-key", b"k-2")])))
    await asyncio.sleep(0.01)
    assert {"k-1": 1, "k-2": 1} == directory.calls
    directory.gate.set()
    callers = await asyncio.gather(*waiting)
    assert {200} == {answer.status for answer in callers}
    assert {"k-1": 1, "k-2": 1} == directory.calls


async def test_the_cancellation_of_the_first_request_does_not_disturb_the_others(
    app: TokenMiddleware, directory: Directory
) -> None:
    """The call that all of them wait for goes on."""
    directory.gate.clear()
    first, second = (asyncio.ensure_future(call(app, headers=[KEY])) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait([first])
    directory.gate.set()
    assert 200 == (await second).status
    assert first.cancelled()
    assert 1 == directory.calls["k-1"]


async def test_a_call_that_hangs_is_503_after_wait_seconds(
    app: TokenMiddleware, directory: Directory, clock: ManualClock
) -> None:
    """No request waits longer than that for `authenticate`."""
    directory.gate.clear()
    request = asyncio.ensure_future(call(app, headers=[KEY]))
    await clock.elapse(13)
    assert 503 == (await asyncio.wait_for(request, 5)).status
    directory.gate.set()


async def test_a_websocket_with_a_wrong_key_is_refused(app: TokenMiddleware) -> None:
    """It is closed with code 1008, before the application gets it."""
    answer: Exchange = await call(app, kind="websocket", headers=[(b"x-api-key", b"bad")])
    assert [{"type": "websocket.close", "code": 1008, "reason": ""}] == answer.messages


async def test_authenticate_may_be_a_plain_function() -> None:
    """It has the same answers as an async one: a caller, None for 401, and an exception for 503."""
    callers: dict[str, object] = {"k-1": {"name": "one"}}

    def authenticate(_connection: HTTPConnection, key: str) -> object | None:
        if key == "broken":
            raise LookupError
        return callers.get(key)

    async with TokenBroker({}, authenticate=authenticate) as broker:
        app = TokenMiddleware(answering(answer_caller), broker=broker)
        statuses = [(await call(app, headers=[(b"x-api-key", key)])).status for key in (b"k-1", b"k-2", b"broken")]
    assert [200, 401, 503] == statuses


@pytest.mark.parametrize(("key", "status"), [(None, 401), (b"wrong", 401), (b"k-1", 200)])
async def test_callers_are_authenticated_without_session_ids(
    directory: Directory, key: bytes | None, status: int
) -> None:
    """`sessions=False` leaves out the session id, and not the check of the API key."""
    headers = [] if key is None else [(b"x-api-key", key)]
    async with TokenBroker({}, authenticate=directory, missing_key="reject") as broker:
        app = TokenMiddleware(answering(answer_state), broker=broker, sessions=False)
        answer = await call(app, headers=headers)
        assert status == answer.status
        if status == 200:
            assert {"caller": {"name": "one"}} == answer.json
        # With `missing_key="random"`, a request without a key has the caller None.
        other = TokenMiddleware(answering(answer_state), broker=broker, sessions=False, missing_key="random")
        if key is None:
            assert {"caller": None} == (await call(other)).json
        assert Counter([] if key is None else [key.decode()]) == directory.calls


async def test_the_middlewares_missing_key_holds_without_session_ids() -> None:
    """It refuses a request without a key, although the broker's own option would accept it."""
    async with TokenBroker({}) as broker:
        app = TokenMiddleware(answering(answer_state), broker=broker, sessions=False, missing_key="reject")
        assert 401 == (await call(app)).status
        assert {} == (await call(app, headers=[KEY])).json


async def test_a_session_id_made_later_does_not_authenticate_again(directory: Directory) -> None:
    """A route's dependency makes the id that the middleware left out, and uses the caller that it found."""

    async def later(scope: Scope) -> Any:
        return [await session_id(HTTPConnection(scope)), scope["state"]["caller"]]

    async with TokenBroker({}, authenticate=directory) as broker:
        app = TokenMiddleware(answering(later), broker=broker, sessions=False)
        assert [await broker.session_id("k-1"), {"name": "one"}] == (await call(app, headers=[KEY])).json
    assert Counter(["k-1"]) == directory.calls


async def answer_state(scope: Scope) -> Any:
    """Answer with what the middleware has put into the state, without the broker and the tokens."""
    return {name: value for name, value in scope["state"].items() if name not in {"tokens", STATE_KEY}}
