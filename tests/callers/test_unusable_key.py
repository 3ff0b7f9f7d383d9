"""A caller whose API key cannot be used is not asked for one: the text says what is wrong, and never shows the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from tests.asgi_client import Exchange, answering, call, lifespan, scope_of, session_of
from tokenmw import (
    APIKeyRefused,
    APIKeySource,
    RequestTokens,
    Token,
    TokenBroker,
    TokenMiddleware,
    provider_token,
    request_tokens,
    session_id,
)
from tokenmw.asgi.problems import add_problem_handlers
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

EVERYWHERE = APIKeySource(["authorization", "x-api-key"], query=["key", "other"], cookies=["key"], max_bytes=40)
LONG, WRONG, ONE, TWO = b"k3y-" + b"x" * 40, b"k3y-\xff", b"k3y-1", b"k3y-2"
TOO_LONG = "The API key of this request is too long."
NO_TEXT = "The API key of this request is not UTF-8 text."
TWICE = "This request has more than one API key: send one."
MISSING = "This service needs an API key."


def header(name: bytes, *values: bytes) -> dict[str, Any]:
    """Return the part of a scope that has a header, once for each value."""
    return {"headers": [(name, value) for value in values]}


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "bearer, long": (header(b"authorization", b"Bearer " + LONG), TOO_LONG),
    "bearer, bytes": (header(b"authorization", b"Bearer " + WRONG), NO_TEXT),
    "bearer, twice": (header(b"authorization", b"Bearer " + ONE, b"Bearer " + TWO), TWICE),
    "scheme, long": (header(b"authorization", b"ApiKey " + LONG), TOO_LONG),
    "scheme, bytes": (header(b"authorization", b"ApiKey " + WRONG), NO_TEXT),
    "header, long": (header(b"x-api-key", LONG), TOO_LONG),
    "header, bytes": (header(b"x-api-key", WRONG), NO_TEXT),
    "header, twice": (header(b"x-api-key", ONE, TWO), TWICE),
    "query, long": ({"query_string": b"key=" + LONG}, TOO_LONG),
    "query, bytes": ({"query_string": b"key=k3y-%FF"}, NO_TEXT),
    "query, twice": ({"query_string": b"key=k3y-1&key=k3y-2"}, TWICE),
    "cookie, long": (header(b"cookie", b"key=" + LONG), TOO_LONG),
    "cookie, bytes": (header(b"cookie", b'key="k3y-\\377"'), NO_TEXT),
    "cookie, twice": (header(b"cookie", b"key=k3y-1; key=k3y-2"), TWICE),
    # The first source that is there decides, as where a key is taken.
    "first of two": ({**header(b"x-api-key", LONG), "query_string": b"key=k3y-1"}, TOO_LONG),
    "another credential first": (
        {"headers": [(b"authorization", b"Basic a"), (b"x-api-key", WRONG)]},
        NO_TEXT,
    ),
    # No key, or an empty one.
    "none": ({"headers": []}, MISSING),
    "other credential": (header(b"authorization", b"Basic a3k6"), MISSING),
    "empty header": (header(b"x-api-key", b""), MISSING),
    "empty bearer": (header(b"authorization", b"Bearer "), MISSING),
    "empty query": ({"query_string": b"key="}, MISSING),
    "empty cookie": (header(b"cookie", b"key="), MISSING),
}


async def caller_of(_connection: HTTPConnection, key: str) -> str:
    """Accept every key."""
    return key


def middleware(broker: TokenBroker) -> ASGIApp:
    """Make an application behind the middleware."""
    return TokenMiddleware(answering(session_of), broker=broker)


def without_sessions(broker: TokenBroker) -> ASGIApp:
    """Make an application behind the middleware without session ids."""
    return TokenMiddleware(answering(session_of), broker=broker, sessions=False)


def dependencies(broker: TokenBroker) -> ASGIApp:
    """Make a FastAPI application that has the lifespan only."""
    app = add_problem_handlers(FastAPI(lifespan=broker.lifespan))

    @app.get("/")
    async def by_token(crm: Annotated[Token, Depends(provider_token("crm"))]) -> str:
        return crm.value

    @app.get("/session")
    async def by_session(session: Annotated[str, Depends(session_id)]) -> str:
        return session

    @app.get("/tokens")
    async def by_tokens(tokens: Annotated[RequestTokens, Depends(request_tokens)]) -> int:
        return len(tokens)

    @app.websocket("/")
    async def by_websocket(websocket: WebSocket, session: Annotated[str, Depends(session_id)]) -> None:
        raise AssertionError(session, websocket)

    return app


def assert_refused(answer: Exchange, detail: str) -> None:
    """Check a refusal: status, text, and nothing of the key."""
    assert (401, detail) == (answer.status, answer.json["detail"])
    assert "Bearer" == dict(answer.headers)["www-authenticate"]
    assert b"k3y" not in answer.body
    assert b"xxx" not in answer.body


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("check", [None, caller_of], ids=["missing_key", "authenticate too"])
async def test_every_way_to_a_refusal_has_one_wording(case: str, check: Any) -> None:
    """The middleware with and without sessions, three dependencies, and the denial of a WebSocket."""
    options, detail = CASES[case]
    websocket: dict[str, Any] = {"kind": "websocket", "extensions": {"websocket.http.response": {}}}
    makes: list[Callable[[TokenBroker], ASGIApp]] = [middleware, without_sessions, dependencies]
    for make in makes:
        broker = TokenBroker({"crm": StaticToken("t")}, api_key=EVERYWHERE, missing_key="reject", authenticate=check)
        app = make(broker)
        async with lifespan(app) as state:
            paths = ["/", "/session", "/tokens"] if make is dependencies else ["/"]
            for path in paths:
                assert_refused(await call(app, path=path, state=dict(state), **options), detail)
            denied = await call(app, state=dict(state), **websocket, **options)
            assert_refused(denied, detail)
            closed = await call(app, state=dict(state), kind="websocket", **options)
            assert (["websocket.close"], 1008) == (closed.kinds, closed.messages[0]["code"])
            assert "" == closed.messages[0]["reason"]


async def test_without_reject_it_is_a_request_without_a_key() -> None:
    """As before: it is served, with an id of its own, and `authenticate` does not see the key."""
    seen: list[str] = []
    async with TokenBroker({}, api_key=EVERYWHERE, authenticate=lambda _connection, key: seen.append(key)) as broker:
        for options, _detail in CASES.values():
            answers = [await call(middleware(broker), **options) for _ in range(2)]
            assert [200, 200] == [answer.status for answer in answers]
            assert 2 == len({answer.json for answer in answers})
    assert not seen


def test_the_reason_agrees_with_what_is_found() -> None:
    """A source has a reason exactly for a request whose key it does not take."""
    for options, detail in CASES.values():
        scope = scope_of("http", **options)
        assert EVERYWHERE.find(scope) is None
        assert (EVERYWHERE.problem(scope) or MISSING) == detail
    taken: list[dict[str, Any]] = [
        header(b"x-api-key", ONE),
        {"query_string": b"key=k3y-1&key=k3y-1"},
        header(b"x-api-key", ONE, ONE),
    ]
    for usable in taken:
        scope = scope_of("http", **usable)
        assert EVERYWHERE.find(scope) == ONE
        assert EVERYWHERE.problem(scope) is None


VALUES = st.sampled_from([b"", ONE, TWO, LONG, WRONG, b"Bearer ", b"Basic a", b"Bearer " + ONE, b"Bearer " + WRONG])
NAMES = st.sampled_from([b"authorization", b"x-api-key", b"cookie", b"host"])
QUERIES = st.lists(st.sampled_from([b"key=", b"key=k3y-1", b"key=k3y-2", b"other=k3y-%FF", b"key=" + LONG]), max_size=2)


@given(
    st.lists(st.tuples(NAMES, VALUES | VALUES.map(b"key=".__add__)), max_size=4),
    QUERIES.map(b"&".join),
)
def test_no_request_has_both_a_key_and_a_problem(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    """Whatever a request has; and one that has neither has no key in its header."""
    scope = scope_of("http", headers=headers, query_string=query)
    found, problem = EVERYWHERE.find(scope), EVERYWHERE.problem(scope)
    assert found is None or problem is None
    if found is None and problem is None:
        first = next((value for name, value in headers if name == b"x-api-key"), b"")
        assert first == b"" or any(name == b"authorization" for name, _ in headers)


async def test_the_class_alone_is_a_refusal_with_a_sentence() -> None:
    """`raise APIKeyRefused`, without a text, does not show the name of the status."""

    async def refuse(_connection: HTTPConnection, _key: str) -> None:
        raise APIKeyRefused

    async with TokenBroker({}, authenticate=refuse) as broker:
        for _ in range(2):  # the second one is remembered
            assert_refused(await call(middleware(broker), **header(b"x-api-key", b"k")), "The API key is not accepted.")
    assert "The API key is not accepted." == str(APIKeyRefused()) == APIKeyRefused().detail


def test_a_class_of_the_program_keeps_its_sentence() -> None:
    """A fixed text of a subclass counts more than ours."""

    class Expired(APIKeyRefused):
        fixed_detail = "Renew your key."

    assert ("Renew your key.", "Renew your key.") == (Expired().detail, str(Expired()))
    assert ("Renew your key.", "key 7 expired") == (Expired("key 7 expired").detail, str(Expired("key 7 expired")))
    assert ("Ask us.", "Ask us.") == (APIKeyRefused(detail="Ask us.").detail, str(APIKeyRefused(detail="Ask us.")))
