"""The chat example does what people copy it for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.examples.upstream import WITHIN, Model, running_example
from tokenmw.testing import Fault, ProviderServer

ALICE = {"X-API-Key": "alice-key"}
BOB = {"Authorization": "Bearer bob-key"}


@pytest.fixture
def address(model: Model, tokens: ProviderServer) -> Generator[str]:
    """Host and port of the running example."""
    with running_example("starlette_app", model=model, tokens=tokens) as address:
        yield address


def chat(address: str, headers: dict[str, str]) -> connect:
    """Open a WebSocket to the example."""
    return connect(f"ws://{address}/chat", additional_headers=headers, proxy=None, open_timeout=WITHIN)


async def hear(websocket: ClientConnection) -> Any:
    """Receive one message."""
    async with asyncio.timeout(WITHIN):
        return json.loads(await websocket.recv())


async def test_words_arrive_as_they_are_sent(address: str, model: Model) -> None:
    """The first event is here before the model has sent the second one, and the end is told."""
    async with chat(address, ALICE) as websocket:
        await websocket.send("Hello!")
        assert await hear(websocket) == {"data": "one"}
        assert not model.ended.is_set()
        model.goes_on.set()
        assert await hear(websocket) == {"data": "two"}
        assert await hear(websocket) == {"done": True}
    body = json.loads(model.requests[0][1])
    assert body["messages"] == [{"role": "user", "content": "Hello!"}]


async def test_the_model_sees_our_token_and_the_caller_s_session(
    address: str, model: Model, tokens: ProviderServer
) -> None:
    """Two callers are two sessions, over WebSocket and HTTP alike, with one token between them."""
    model.goes_on.set()
    for headers in (ALICE, BOB):
        async with chat(address, headers) as websocket:
            for _ in range(2):
                await websocket.send("Hello!")
                assert [await hear(websocket) for _ in range(3)][-1] == {"done": True}
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
        sessions = [(await http.get("/session", headers=headers)).json()["session_id"] for headers in (ALICE, BOB)]
    alice, bob = sessions
    assert [alice, alice, bob, bob] == model.seen("x-session-id")
    assert alice != bob
    (token,) = {value.removeprefix("Bearer ") for value in model.seen("authorization")}
    assert tokens.issued.find(token) is not None
    assert tokens.calls["oauth2"] == 1


async def test_a_caller_without_a_key_is_refused(address: str) -> None:
    """The handshake is answered with 401."""
    with pytest.raises(InvalidStatus) as refused:
        await chat(address, {})
    assert refused.value.response.status_code == 401


async def test_the_model_s_error_is_told_and_the_socket_lives_on(address: str, model: Model) -> None:
    """One question that fails is no end of the conversation."""
    model.goes_on.set()
    model.refusal = JSONResponse({}, 429)
    async with chat(address, ALICE) as websocket:
        await websocket.send("Hello!")
        assert await hear(websocket) == {"error": "The model has answered 429."}
        model.refusal = None
        await websocket.send("Hello again!")
        assert await hear(websocket) == {"data": "one"}


async def test_no_token_is_told_and_the_socket_lives_on(model: Model, tokens: ProviderServer) -> None:
    """While the token server is down, a caller hears of it, without anything that is secret."""
    tokens.oauth2.script.always = Fault(status=503, headers={"Retry-After": "2"})
    with running_example("starlette_app", model=model, tokens=tokens) as address:
        async with chat(address, ALICE) as websocket:
            for _ in range(2):
                await websocket.send("Hello!")
                assert (await hear(websocket))["error"].startswith("model: ")
    assert model.requests == []


async def test_hanging_up_ends_the_upstream_request(address: str, model: Model) -> None:
    """A model does not write on for somebody who has gone."""
    async with chat(address, ALICE) as websocket:
        await websocket.send("Hello!")
        assert await hear(websocket) == {"data": "one"}
    assert await model.ended.wait(WITHIN)
