"""The events of a whole broker: what requests, outages and operators cause, once each and in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.asgi_client import answering, call, session_of
from tests.redis.waiting import until
from tokenmw import CredentialRejected, Limits, SessionUnavailable, TokenBroker, TokenMiddleware, TokenUnavailable
from tokenmw.observe import (
    BrokerClosed,
    BrokerOpened,
    CallerRefused,
    Event,
    LeaseChanged,
    RedisCommandFinished,
    RedisStateChanged,
    SessionReset,
    SessionResolved,
    SessionsMade,
    SessionsReplaced,
    StateSampled,
    TokenInvalidated,
    TokenServed,
    TokenWaiting,
    Uploaded,
)
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from tests.servers import RedisServer

SECRET = "a secret of some length"


class Seen:
    """The events of a broker."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    def of(self, *kinds: type[Event]) -> list[Any]:
        """Return the events of some classes."""
        return [event for event in self.all if isinstance(event, kinds)]

    def counts(self, kind: type[Event], *fields: str) -> dict[Any, int]:
        """Return the sums of the counts of a class, by a field."""
        found: dict[Any, int] = {}
        for event in self.of(kind):
            key = tuple(getattr(event, name) for name in fields)
            found[key] = found.get(key, 0) + event.count
        return found


@pytest.fixture
def seen() -> Seen:
    """Return what an observer of the test has seen."""
    return Seen()


async def test_requests_are_counted_by_what_they_got(seen: Seen) -> None:
    """One caller waited, the others got the token from the cache; the counts are there when the broker is closed."""
    async with TokenBroker({"crm": StaticToken("t")}, observers=[seen.all.append], secret_key=SECRET) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["crm"])
        for _ in range(10):
            await call(app, headers=[(b"x-api-key", b"k")])
        await call(app)  # without a key
    assert {("crm", "waited"): 1, ("crm", "hit"): 10} == seen.counts(TokenServed, "provider", "result")
    assert {("derived",): 1, ("local",): 9, ("random",): 1} == seen.counts(SessionResolved, "source")
    assert [event.refresh for event in seen.of(TokenWaiting)]
    assert isinstance(seen.all[0], BrokerOpened)
    assert BrokerClosed(seen.all[0].broker) == seen.all[-1]
    assert seen.all[0].providers == ("crm",)


async def test_a_request_that_waits_is_not_also_a_hit(seen: Seen) -> None:
    """Each call of the program is counted once, whichever way it asks."""
    async with TokenBroker({"crm": StaticToken("t")}, observers=[seen.all.append]) as broker:
        await asyncio.gather(*(broker.token("crm") for _ in range(5)))
        await broker.token("crm")
    assert {("waited",): 5, ("hit",): 1} == seen.counts(TokenServed, "result")
    assert 5 == len([event for event in seen.of(TokenServed) if event.seconds is not None])


async def test_requests_without_a_token_are_counted(seen: Seen) -> None:
    """The first one waited for the provider; those that are refused at once are published together."""

    def reject() -> str:
        raise CredentialRejected("no")

    def fail() -> str:
        raise TokenUnavailable("busy")

    providers = {"rejected": StaticToken(reject), "failing": StaticToken(fail)}
    async with TokenBroker(providers, observers=[seen.all.append]) as broker:
        for name in providers:
            for _ in range(20):
                with pytest.raises((CredentialRejected, TokenUnavailable)):
                    await broker.token(name)
    expected = {("rejected", "rejected"): 20, ("failing", "unavailable"): 20}
    assert expected == seen.counts(TokenServed, "provider", "result")
    assert len(seen.of(TokenServed)) <= 6
    sample = seen.of(StateSampled)[-1]
    assert ({"rejected": 1}, {"unanswered": 1}) == (sample.failing["rejected"], sample.failing["failing"])
    assert sample.attempts["rejected"] > sample.expiries["rejected"] == 0.0


async def test_refused_callers_are_counted_by_reason(seen: Seen) -> None:
    """What the middleware answers with 401 and 503 has a reason."""

    async def authenticate(_connection: object, key: str) -> object:
        if key == "undecided":
            raise RuntimeError("database")
        return key if key == "good" else None

    async with TokenBroker({}, authenticate=authenticate, missing_key="reject", observers=[seen.all.append]) as broker:
        app = TokenMiddleware(answering(session_of), broker=broker)
        keys = [b"good", b"bad", b"bad", b"undecided", b"\xff\xfe", None]
        answers = [await call(app, headers=[] if key is None else [(b"x-api-key", key)]) for key in keys]
    assert [200, 401, 401, 503, 401, 401] == [answer.status for answer in answers]
    assert {("refused",): 2, ("unchecked",): 1, ("unusable",): 1, ("missing",): 1} == seen.counts(
        CallerRefused, "reason"
    )


async def test_events_with_redis(redis_server: RedisServer, seen: Seen) -> None:
    """Leases, commands and sessions: made by the first instance, read by the second one."""
    options: dict[str, Any] = {"redis": redis_server.url, "secret_key": SECRET}
    providers, other = {"crm": StaticToken(lambda: "t", credential_id="c")}, Seen()
    async with (
        TokenBroker(providers, **options, observers=[seen.all.append]) as one,
        TokenBroker(providers, **options, observers=[other.all.append]) as two,
    ):
        await one.token("crm")
        await two.token("crm")
        assert await one.session_id("k") == await two.session_id("k")
        await two.reset_session("k")
        await until(lambda: bool(seen.of(SessionsReplaced)), within=3)
        assert (["won"], []) == tuple([event.change for event in part.of(LeaseChanged)] for part in (seen, other))
        await one.invalidate_provider("crm")
        await until(lambda: bool(other.of(TokenInvalidated)), within=3)
    assert {"acquire", "commit", "probe", "session"} <= {event.operation for event in seen.of(RedisCommandFinished)}
    assert {""} == {event.error for event in seen.of(RedisCommandFinished)}
    assert ({(): 1}, {}) == (seen.counts(SessionsMade), other.counts(SessionsMade))
    assert [SessionReset()] == other.of(SessionReset)
    assert ["operator", "instance"] == [event.cause for part in (seen, other) for event in part.of(TokenInvalidated)]
    sample = seen.of(StateSampled)[0]
    assert {redis_server.url.split("@")[-1].split("/")[-2]: True} == sample.nodes
    assert {"in_use", "waiting"} == sample.connections.keys()


async def test_events_of_an_outage(private_redis: RedisServer, seen: Seen) -> None:
    """The server's circuit opens and closes, and what was made without it is uploaded."""
    async with TokenBroker(
        {"crm": StaticToken(lambda: "t", credential_id="c")},
        redis=private_redis.url,
        secret_key=SECRET,
        observers=[seen.all.append],
        limits=Limits(command_seconds=0.1),
        hints=False,
    ) as broker:
        private_redis.freeze()
        await broker.token("crm")
        await broker.session_id("k")
        await until(lambda: bool(seen.of(RedisStateChanged)), within=5)
        private_redis.thaw()
        await until(lambda: {"token", "session"} <= {event.kind for event in seen.of(Uploaded)}, within=15)
    assert [False, True] == [event.up for event in seen.of(RedisStateChanged)]
    assert "timeout" == seen.of(RedisStateChanged)[0].error
    assert "timeout" in {event.error for event in seen.of(RedisCommandFinished)}
    assert {("derived",)} <= seen.counts(SessionResolved, "source").keys()


async def test_required_sessions_without_redis_are_counted(private_redis: RedisServer, seen: Seen) -> None:
    """A caller that got no session id is one that was refused."""
    private_redis.kill()
    async with TokenBroker(
        {}, redis=private_redis.url, secret_key=SECRET, session_policy="required", observers=[seen.all.append]
    ) as broker:
        with pytest.raises(SessionUnavailable):
            await broker.session_id("k")
    assert {("no_session",): 1} == seen.counts(CallerRefused, "reason")


async def test_an_observer_that_raises_harms_nothing() -> None:
    """Requests, sessions and the end of the broker go on, whatever each event causes."""

    def broken(_event: Event) -> None:
        raise RuntimeError("canary")

    async with TokenBroker({"crm": StaticToken("t")}, observers=[broken], secret_key=SECRET) as broker:
        assert "t" == (await broker.token("crm")).value
        assert await broker.session_id("k") == await broker.session_id("k")


async def test_nothing_is_counted_without_observers() -> None:
    """A warm request pays nothing for events that no observer gets: there is no counter and no further task."""
    async with TokenBroker({"crm": StaticToken("t")}, missing_key="reject") as broker:
        app = TokenMiddleware(answering(session_of), broker=broker, inject=["crm"])
        await call(app)
        assert 0 == len(broker._settings.observe._counts)
        assert [] == [task for task in asyncio.all_tasks() if task.get_name() == "tokenmw sampling"]
