"""The gateway example does what its docstring says."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Message

from tests.examples.upstream import CLIENT, WITHIN, Model, running_example
from tokenmw.testing import Fault, ProviderServer

PATH = "/v1/chat/completions"
QUESTION = {"stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
ALICE = {"Authorization": "Bearer alice-key"}
BOB = {"X-API-Key": "bob-key"}


@pytest.fixture
def gateway(model: Model, tokens: ProviderServer) -> Generator[str]:
    """The base URL of the running example."""
    with running_example("llm_gateway", model=model, tokens=tokens) as address:
        yield f"http://{address}"


@pytest.fixture
async def caller(gateway: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A caller of the gateway."""
    async with httpx.AsyncClient(base_url=gateway, timeout=WITHIN, trust_env=False) as client:
        yield client


async def test_chunks_are_streamed(caller: httpx.AsyncClient, model: Model) -> None:
    """The caller receives the first event before the model sends the second."""
    async with caller.stream("POST", PATH, json=QUESTION, headers=ALICE) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"data: one\n\n"
        assert not model.closed.is_set()
        model.continues.set()
        assert b"".join([chunk async for chunk in chunks]) == b"data: two\n\n"
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_model_gets_our_token_and_the_caller_s_session_id(
    caller: httpx.AsyncClient, model: Model, tokens: ProviderServer
) -> None:
    """Callers' keys are not forwarded; each key has one session id, and all share one token."""
    model.continues.set()
    for headers in (ALICE, BOB, {"X-API-Key": "alice-key"}):
        assert (await caller.post(PATH, json=QUESTION, headers=headers)).status_code == 200
    alice, bob, again = model.seen("x-session-id")
    assert alice == again != bob
    (token,) = {value.removeprefix("Bearer ") for value in model.seen("authorization")}
    assert tokens.issued.find(token) is not None
    assert tokens.calls["oauth2"] == 1
    assert [json.loads(body) for _, body in model.requests] == [QUESTION] * 3
    assert "-key" not in str([headers for headers, _ in model.requests])


async def test_caller_without_a_key_is_refused(caller: httpx.AsyncClient, model: Model) -> None:
    """A caller without a key gets 401, and the model gets no request."""
    answer = await caller.post(PATH, json=QUESTION)
    assert answer.status_code == 401
    assert model.requests == []


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_model_errors_are_passed_on(caller: httpx.AsyncClient, model: Model, status: int) -> None:
    """The model's error and its `Retry-After` reach the caller; its cookies do not."""
    model.refusal = JSONResponse({"error": "of the model"}, status, headers={"Retry-After": "7", "Set-Cookie": "a=b"})
    answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert answer.status_code == status
    assert answer.json() == {"error": "of the model"}
    assert answer.headers["retry-after"] == "7"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("status", [401, 403])
async def test_rejected_token_is_502_for_the_caller(caller: httpx.AsyncClient, model: Model, status: int) -> None:
    """The model's 401 or 403 is about our token, so the caller gets 502."""
    model.refusal = JSONResponse({"error": "no such client"}, status)
    answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert answer.status_code == 502


async def test_no_token_is_503_with_retry_after(model: Model, tokens: ProviderServer) -> None:
    """While the token server is down, callers get 503 with `Retry-After`, and the model gets no request."""
    tokens.oauth2.script.always = Fault(status=503, headers={"Retry-After": "2"})
    with running_example("llm_gateway", model=model, tokens=tokens) as address:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as caller:
            answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert model.requests == []


async def test_unreachable_model_is_502(tokens: ProviderServer) -> None:
    """The caller gets a short error without a traceback."""
    with running_example("llm_gateway", model=Model(), tokens=tokens, MODEL_URL="http://127.0.0.1:1") as address:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as caller:
            answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert (answer.status_code, answer.json()) == (502, {"detail": "The model cannot be reached."})


async def test_response_breaks_off_when_the_model_breaks_off(caller: httpx.AsyncClient, model: Model) -> None:
    """The caller sees a protocol error, not a response that seems complete."""
    model.breaks_off = True
    model.continues.set()
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.post(PATH, json=QUESTION, headers=ALICE)


async def test_disconnect_during_the_stream_closes_the_upstream_request(
    caller: httpx.AsyncClient, model: Model
) -> None:
    """The model's response is closed when the caller disconnects."""
    async with caller.stream("POST", PATH, json=QUESTION, headers=ALICE) as answer:
        await anext(answer.aiter_raw())
    assert await model.closed.wait(WITHIN)


async def test_disconnect_before_the_response_closes_the_upstream_request(gateway: str, model: Model) -> None:
    """The upstream request is closed even if the model has not begun to respond."""
    model.begins = type(model.begins)()
    async with httpx.AsyncClient(base_url=gateway, trust_env=False, timeout=httpx.Timeout(WITHIN, read=0.5)) as caller:
        with pytest.raises(httpx.ReadTimeout):
            await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert await model.closed.wait(WITHIN)


async def test_upstream_response_is_closed_if_the_caller_has_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed even if the caller disconnects before the first chunk is read."""
    for name, value in {**CLIENT, "MODEL_URL": "http://model", "MODEL_TOKEN_URL": "https://idp.example/token"}.items():
        monkeypatch.setenv(name, value)
    module = importlib.import_module("examples.llm_gateway")

    class Stream(httpx.AsyncByteStream):
        closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"never read"

        async def aclose(self) -> None:
            self.closed = True

    async def send(_message: Message) -> None:
        raise OSError

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    stream = Stream()
    with pytest.raises(ClientDisconnect):
        await module.Relay(httpx.Response(200, stream=stream))(
            {"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send
        )
    assert stream.closed
