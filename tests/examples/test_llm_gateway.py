"""The gateway example does what people copy it for."""

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


async def test_chunks_arrive_as_they_are_sent(caller: httpx.AsyncClient, model: Model) -> None:
    """The first event is here before the model has sent the second one."""
    async with caller.stream("POST", PATH, json=QUESTION, headers=ALICE) as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"data: one\n\n"
        assert not model.ended.is_set()
        model.goes_on.set()
        assert b"".join([chunk async for chunk in chunks]) == b"data: two\n\n"
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_the_model_sees_our_token_and_the_caller_s_session(
    caller: httpx.AsyncClient, model: Model, tokens: ProviderServer
) -> None:
    """Callers' keys stay here; each key has one session id, and all share one token."""
    model.goes_on.set()
    for headers in (ALICE, BOB, {"X-API-Key": "alice-key"}):
        assert (await caller.post(PATH, json=QUESTION, headers=headers)).status_code == 200
    alice, bob, again = model.seen("x-session-id")
    assert alice == again != bob
    (token,) = {value.removeprefix("Bearer ") for value in model.seen("authorization")}
    assert tokens.issued.find(token) is not None
    assert tokens.calls["oauth2"] == 1
    assert [json.loads(body) for _, body in model.requests] == [QUESTION] * 3
    assert "-key" not in str([headers for headers, _ in model.requests])


async def test_a_caller_without_a_key_is_refused(caller: httpx.AsyncClient, model: Model) -> None:
    """Nothing is asked of the model for somebody unknown."""
    answer = await caller.post(PATH, json=QUESTION)
    assert answer.status_code == 401
    assert model.requests == []


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_the_model_s_errors_are_passed_on(caller: httpx.AsyncClient, model: Model, status: int) -> None:
    """What the model says about a request is the caller's to know, with when to come again."""
    model.refusal = JSONResponse({"error": "of the model"}, status, headers={"Retry-After": "7", "Set-Cookie": "a=b"})
    answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert answer.status_code == status
    assert answer.json() == {"error": "of the model"}
    assert answer.headers["retry-after"] == "7"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_gateway_is_not_the_caller_s_fault(
    caller: httpx.AsyncClient, model: Model, status: int
) -> None:
    """401 or 403 of the model is about our token, and would mislead a caller."""
    model.refusal = JSONResponse({"error": "no such client"}, status)
    answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert answer.status_code == 502


async def test_no_token_is_503_with_a_time(model: Model, tokens: ProviderServer) -> None:
    """While the token server is down, callers are told when to come again, and the model is not asked."""
    tokens.oauth2.script.always = Fault(status=503, headers={"Retry-After": "2"})
    with running_example("llm_gateway", model=model, tokens=tokens) as address:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as caller:
            answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert model.requests == []


async def test_a_model_that_is_away_is_502(tokens: ProviderServer) -> None:
    """What cannot be reached is said, without a traceback for the caller."""
    with running_example("llm_gateway", model=Model(), tokens=tokens, MODEL_URL="http://127.0.0.1:1") as address:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as caller:
            answer = await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert (answer.status_code, answer.json()) == (502, {"detail": "The model cannot be reached."})


async def test_a_model_that_breaks_off_breaks_off_the_answer(caller: httpx.AsyncClient, model: Model) -> None:
    """Half an answer does not look like a whole one."""
    model.breaks_off = True
    model.goes_on.set()
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.post(PATH, json=QUESTION, headers=ALICE)


async def test_hanging_up_in_the_stream_ends_the_upstream_request(caller: httpx.AsyncClient, model: Model) -> None:
    """A model does not write on for somebody who has gone."""
    async with caller.stream("POST", PATH, json=QUESTION, headers=ALICE) as answer:
        await anext(answer.aiter_raw())
    assert await model.ended.wait(WITHIN)


async def test_hanging_up_before_the_answer_ends_the_upstream_request(gateway: str, model: Model) -> None:
    """The same while the model has not begun to answer."""
    model.begins = type(model.begins)()
    async with httpx.AsyncClient(base_url=gateway, trust_env=False, timeout=httpx.Timeout(WITHIN, read=0.5)) as caller:
        with pytest.raises(httpx.ReadTimeout):
            await caller.post(PATH, json=QUESTION, headers=ALICE)
    assert await model.ended.wait(WITHIN)


async def test_an_answer_that_nobody_waits_for_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the caller has gone before the first byte, so that no chunk is ever asked for."""
    for name, value in {**CLIENT, "MODEL_URL": "http://model", "MODEL_TOKEN_URL": "https://idp.example/token"}.items():
        monkeypatch.setenv(name, value)
    module = importlib.import_module("examples.llm_gateway")

    class Stream(httpx.AsyncByteStream):
        closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"never asked for"

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
