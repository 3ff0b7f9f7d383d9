"""The chat example does what its docstring says."""

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


async def receive(websocket: ClientConnection) -> Any:
    """Receive one message."""
    async with asyncio.timeout(WITHIN):
        return json.loads(await websocket.recv())


async def test_words_are_streamed(address: str, model: Model) -> None:
    """The caller receives the first event before the model sends the second, and a final message."""
    async with chat(address, ALICE) as websocket:
        await websocket.send("Hello!")
        assert await receive(websocket) == {"data": "one"}
        assert not model.closed.is_set()
        model.continues.set()
        assert await receive(websocket) == {"data": "two"}
        assert await receive(websocket) == {"done": True}
    body = json.loads(model.requests[0][1])
    assert body["messages"] == [{"role": "user", "content": "Hello!"}]


async def test_model_gets_our_token_and_the_caller_s_session_id(
    address: str, model: Model, tokens: ProviderServer
) -> None:
    """Two callers have two session ids, the same over WebSocket and HTTP, and share one token."""
    model.continues.set()
    for headers in (ALICE, BOB):
        async with chat(address, headers) as websocket:
            for _ in range(2):
                await websocket.send("Hello!")
                assert [await receive(websocket) for _ in range(3)][-1] == {"done": True}
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
        sessions = [(await http.get("/session", headers=headers)).json()["session_id"] for headers in (ALICE, BOB)]
    alice, bob = sessions
    assert [alice, alice, bob, bob] == model.seen("x-session-id")
    assert alice != bob
    (token,) = {value.removeprefix("Bearer ") for value in model.seen("authorization")}
    assert tokens.issued.find(token) is not None
    assert tokens.calls["oauth2"] == 1


async def test_caller_without_a_key_is_refused(address: str) -> None:
    """The handshake gets a 401."""
    with pytest.raises(InvalidStatus) as refused:
        await chat(address, {})
    assert refused.value.response.status_code == 401


async def test_model_error_is_sent_and_the_socket_stays_open(address: str, model: Model) -> None:
    """After a question that fails, the next question is answered."""
    model.continues.set()
    model.refusal = JSONResponse({}, 429)
    async with chat(address, ALICE) as websocket:
        await websocket.send("Hello!")
        assert await receive(websocket) == {"error": "The model responded with 429."}
        model.refusal = None
        await websocket.send("Hello again!")
        assert await receive(websocket) == {"data": "one"}


async def test_missing_token_is_sent_as_an_error_and_the_socket_stays_open(
    model: Model, tokens: ProviderServer
) -> None:
    """While the token server is down, each question gets an error message without secrets."""
    tokens.oauth2.script.always = Fault(status=503, headers={"Retry-After": "2"})
    with running_example("starlette_app", model=model, tokens=tokens) as address:
        async with chat(address, ALICE) as websocket:
            for _ in range(2):
                await websocket.send("Hello!")
                assert (await receive(websocket))["error"].startswith("model: ")
    assert model.requests == []


async def test_disconnect_closes_the_upstream_request(address: str, model: Model) -> None:
    """The model's response is closed when the caller disconnects."""
    async with chat(address, ALICE) as websocket:
        await websocket.send("Hello!")
        assert await receive(websocket) == {"data": "one"}
    assert await model.closed.wait(WITHIN)
