"""`authenticate` is asked once at a time for a key, and whatever it does, the caller gets a clear answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from tokenmw.callers.authenticate import Authenticator, RefusedKeys, as_text
from tokenmw.errors import APIKeyRefused, RequestError, SessionUnavailable
from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.testing import ManualClock

SCOPE: dict[str, Any] = {"type": "http", "headers": [(b"host", b"a.example")], "path": "/"}
SECRET = b"sk-live-7"


class Desk:
    """An `authenticate` whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Any = "alice"
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, connection: HTTPConnection, key: str) -> object | None:
        self.asked.append(key)
        assert connection.headers["host"] == "a.example"
        await self.go.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        answer: object | None = self.answer
        return answer


@pytest.fixture
async def desk() -> Desk:
    """Who is asked."""
    return Desk()


@pytest.fixture
async def clock() -> ManualClock:
    """Time that the test moves."""
    return ManualClock()


@pytest.fixture
async def made(desk: Desk, clock: ManualClock) -> AsyncGenerator[Callable[..., Authenticator]]:
    """Makes authenticators, and stops them."""
    all_made: list[Authenticator] = []

    def make(authenticate: Any = desk, **limits: Any) -> Authenticator:
        bounds = Limits(**limits)
        refused = RefusedKeys(limits=bounds, clock=clock)
        log = ThrottledLog(clock)
        all_made.append(Authenticator(authenticate, refused=refused, limits=bounds, clock=clock, log=log))
        return all_made[-1]

    yield make
    for authenticator in all_made:
        await authenticator.close()


@pytest.mark.parametrize("answer", ["alice", 0, "", True, {"tenant": 1}])
async def test_whatever_is_neither_none_nor_false_is_the_caller(
    made: Callable[..., Authenticator], desk: Desk, answer: object
) -> None:
    """Also what is empty. An acceptance is not kept, as a key may be revoked."""
    desk.answer = answer
    callers = made()
    assert answer == await callers.caller(SCOPE, SECRET)
    assert answer == await callers.caller(SCOPE, SECRET)
    assert desk.asked == ["sk-live-7"] * 2


@pytest.mark.parametrize("answer", [None, False])
async def test_none_and_false_refuse(made: Callable[..., Authenticator], desk: Desk, answer: object) -> None:
    """`return key in KEYS` is the natural way to write it, and must not let everybody in."""
    desk.answer = answer
    callers = made()
    for _ in range(2):
        with pytest.raises(APIKeyRefused):
            await callers.caller(SCOPE, SECRET)
    assert ["sk-live-7"] == desk.asked


async def test_requests_with_one_key_share_one_look_up(made: Callable[..., Authenticator], desk: Desk) -> None:
    """A hundred at once ask once; the first one hanging up does not disturb the others; another key asks for itself."""
    callers = made()
    desk.go.clear()
    requests = [asyncio.create_task(callers.caller(SCOPE, SECRET)) for _ in range(100)]
    other = asyncio.create_task(callers.caller(SCOPE, b"other"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    requests[0].cancel()
    await asyncio.sleep(0)
    desk.go.set()
    ends = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert ends[1:] == ["alice"] * 99
    assert await other == "alice"
    assert desk.asked == ["sk-live-7", "other"]


async def test_refusal_holds_for_five_seconds(
    made: Callable[..., Authenticator], desk: Desk, clock: ManualClock
) -> None:
    """None is a 401; a caller with a wrong key costs one look-up in that time."""
    callers = made()
    desk.answer = None
    for _ in range(3):
        with pytest.raises(APIKeyRefused) as caught:
            await callers.caller(SCOPE, SECRET)
        assert (caught.value.status_code, (caught.value.headers or {})["WWW-Authenticate"]) == (401, "Bearer")
    assert len(desk.asked) == 1
    clock.advance(5.1)
    callers._refused.expire()
    desk.answer = "alice"
    assert await callers.caller(SCOPE, SECRET) == "alice"


@pytest.mark.parametrize("error", [ValueError("sk-live-7"), asyncio.CancelledError(), KeyError("sk-live-7")])
async def test_look_up_that_fails_is_a_503_for_each_and_not_kept(
    made: Callable[..., Authenticator], desk: Desk, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Everybody gets an exception of his own; the log has one trouble, not one a request, and never the key."""
    caplog.set_level(logging.DEBUG)
    callers = made()
    desk.answer = error
    requests = [asyncio.create_task(callers.caller(SCOPE, SECRET)) for _ in range(5)]
    ends = await asyncio.gather(*requests, return_exceptions=True)
    assert [SessionUnavailable] * 5 == [type(end) for end in ends]
    assert len({id(end) for end in ends}) == 5
    assert len(desk.asked) == 1
    assert [end for end in ends if "sk-live" in str(end) or "sk-live" in repr(end)] == []
    if isinstance(error, Exception):
        assert len(caplog.records) == 1
    assert "sk-live" not in caplog.text
    desk.answer = "alice"
    assert await callers.caller(SCOPE, SECRET) == "alice"


@pytest.mark.parametrize(
    "error", [APIKeyRefused("Suspended.", challenge="Bearer realm=x"), SessionUnavailable("Later.", retry_after=9.0)]
)
async def test_answer_of_its_own_is_handed_on(
    made: Callable[..., Authenticator], desk: Desk, error: RequestError
) -> None:
    """`authenticate` may raise our errors to say more; each request gets one of its own, as it was raised."""
    callers = made()
    desk.answer = error
    ends = await asyncio.gather(*(callers.caller(SCOPE, SECRET) for _ in range(3)), return_exceptions=True)
    assert len({id(end) for end in ends}) == 3
    for end in ends:
        assert isinstance(end, type(error))
        assert (error.detail, error.headers, error.status_code) == (end.detail, end.headers, end.status_code)


async def test_look_up_that_hangs_costs_a_request_its_wait(
    made: Callable[..., Authenticator], desk: Desk, clock: ManualClock
) -> None:
    """After `wait_seconds` the request is told to try again."""
    callers = made()
    desk.go.clear()
    request = asyncio.create_task(callers.caller(SCOPE, SECRET))
    await clock.elapse(11.9)
    assert not request.done()
    await clock.elapse(0.2)
    with pytest.raises(SessionUnavailable, match="in time"):
        await request


async def test_look_up_that_hangs_does_not_lock_its_key_out(made: Callable[..., Authenticator], desk: Desk) -> None:
    """It is ended after `wait_seconds` even if all who waited have left, and the next request asks anew."""
    callers = made(fetch_seconds=0.01, lease_seconds=0.02, wait_seconds=0.05, authentications=1)
    desk.go.clear()
    request = asyncio.create_task(callers.caller(SCOPE, SECRET))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(SessionUnavailable):
        await callers.caller(SCOPE, b"no room while the other hangs")
    async with asyncio.timeout(5.0):
        while len(callers._calls):  # noqa: ASYNC110  what ends it is a time-out inside, which tells nobody
            await asyncio.sleep(0.005)
    desk.go.set()
    assert await callers.caller(SCOPE, SECRET) == "alice"


async def test_more_look_ups_than_the_bound_are_refused(made: Callable[..., Authenticator], desk: Desk) -> None:
    """A flood of keys does not become a flood of look-ups; nor does closing leave any."""
    callers = made(authentications=2)
    desk.go.clear()
    under_way = [asyncio.create_task(callers.caller(SCOPE, key)) for key in (b"1", b"2")]
    await asyncio.sleep(0)
    with pytest.raises(SessionUnavailable, match="now"):
        await callers.caller(SCOPE, b"3")
    await callers.close()
    ends = await asyncio.gather(*under_way, return_exceptions=True)
    assert [SessionUnavailable] * 2 == [type(end) for end in ends]


def test_key_is_text_for_authenticate() -> None:
    """UTF-8 where it is, else one character a byte: no key is lost, none makes it raise."""
    assert (as_text("é".encode()), as_text(b"\xff"), as_text(b"k")) == ("é", "\xff", "k")
