"""A CORS preflight is never refused, and gets nothing."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient
from starlette.types import Scope

from tests.asgi_client import Exchange, answering, call
from tokenmw import TokenBroker, TokenMiddleware, provider_token, request_tokens, session_id
from tokenmw.broker import STATE_KEY
from tokenmw.providers import StaticToken

KEY = (b"x-api-key", b"k-1")
PREFLIGHT = [
    (b"origin", b"https://app.example"),
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization"),
]


@pytest.fixture
def calls() -> list[str]:
    """Return the keys that `authenticate` was called with."""
    return []


@pytest.fixture
async def broker(calls: list[str]) -> Any:
    """Open a broker that checks callers."""

    async def authenticate(_connection: HTTPConnection, key: str) -> str | None:
        calls.append(key)
        return key if key == "k-1" else None

    async with TokenBroker({"a": StaticToken("t")}, authenticate=authenticate, missing_key="reject") as broker:
        yield broker


async def state_of(scope: Scope) -> list[str]:
    """Return the names in a connection's state, without the broker's own."""
    return sorted(name for name in scope["state"] if name != STATE_KEY)


async def preflight(app: Any, *headers: tuple[bytes, bytes], **options: Any) -> Exchange:
    """Send a CORS preflight request."""
    return await call(app, method="OPTIONS", headers=[*PREFLIGHT, *headers], **options)


@pytest.mark.parametrize("headers", [[], [KEY], [(b"x-api-key", b"wrong")]])
@pytest.mark.parametrize("option", ["authenticate", "missing_key"])
async def test_a_cors_preflight_passes(broker: TokenBroker, calls: list[str], headers: Any, option: str) -> None:
    """A browser sends none of the request's headers with it, so it has no key; it gets no caller and no session."""
    async with TokenBroker({}) as without:
        app = TokenMiddleware(
            answering(state_of), broker=broker if option == "authenticate" else without, missing_key="reject"
        )
        for _ in range(2):
            answer = await preflight(app, *headers, path="/admin")
            assert (200, []) == (answer.status, answer.json)
        assert not calls
        assert 200 == (await call(app, path="/admin", headers=[KEY])).status
        assert [] == (await preflight(app, KEY, path="/admin")).json, "also if the key is known"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("OPTIONS", []),
        ("OPTIONS", PREFLIGHT[:1]),
        ("OPTIONS", PREFLIGHT[1:]),
        ("OPTIONS", [(b"origin", b""), *PREFLIGHT[1:]]),
        ("OPTIONS", [(b"origin", b" "), *PREFLIGHT[1:]]),
        ("OPTIONS", [PREFLIGHT[0], (b"access-control-request-method", b"")]),
        ("options", PREFLIGHT),
        ("GET", PREFLIGHT),
        ("POST", [*PREFLIGHT, (b"x-http-method-override", b"OPTIONS")]),
    ],
)
async def test_any_other_request_is_no_preflight(broker: TokenBroker, method: str, headers: Any) -> None:
    """A plain OPTIONS is checked, and so is any other method with the headers of a preflight."""
    assert (
        401
        == (
            await call(
                TokenMiddleware(answering(state_of), broker=broker), method=method, headers=headers, path="/admin"
            )
        ).status
    )


async def test_a_websocket_is_no_preflight(broker: TokenBroker) -> None:
    """Whatever headers it has."""
    answer = await call(
        TokenMiddleware(answering(state_of), broker=broker),
        kind="websocket",
        path="/admin",
        headers=PREFLIGHT,
        method="OPTIONS",
    )
    assert ["websocket.close"] == answer.kinds


@pytest.mark.parametrize("dependency", [session_id, request_tokens, provider_token("a")])
async def test_a_preflight_gets_nothing_through_dependencies(broker: TokenBroker, dependency: Any) -> None:
    """A handler of OPTIONS with a dependency checks the caller."""

    async def use(scope: Scope) -> Any:
        await dependency(HTTPConnection(scope))

    app = TokenMiddleware(answering(use), broker=broker)
    assert 401 == (await preflight(app)).status
    assert 200 == (await preflight(app, KEY)).status


async def test_a_preflight_of_an_open_broker_has_a_session_as_before() -> None:
    """Where nothing is checked, nothing can be refused, and each request has its session id."""
    async with TokenBroker({}) as broker:
        app = TokenMiddleware(answering(state_of), broker=broker)
        assert ["session_id", "tokens"] == (await preflight(app)).json


def test_cors_inside_of_the_middleware_answers_a_preflight() -> None:
    """With FastAPI's `add_middleware`, the middleware that is added first is inside."""
    api = FastAPI()
    api.add_middleware(CORSMiddleware, allow_origins=["https://app.example"], allow_methods=["POST"])
    api.add_middleware(TokenMiddleware, broker=TokenBroker({}, missing_key="reject"))
    headers = {name.decode(): value.decode() for name, value in PREFLIGHT if b"headers" not in name}
    with TestClient(api) as client:
        answer = client.options("/", headers=headers)
        assert (200, "https://app.example") == (answer.status_code, answer.headers["access-control-allow-origin"])
