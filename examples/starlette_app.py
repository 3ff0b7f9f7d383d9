"""A chat over WebSocket, in Starlette: each message goes to a model, which answers word by word.

    export MODEL_URL=https://llm.example MODEL_TOKEN_URL=https://idp.example/token
    export MODEL_CLIENT_ID=chat MODEL_CLIENT_SECRET=…
    export REDIS_URL=redis://localhost:6379/0 SECRET_KEY=…        # for several workers
    pip install "tokenmw[crypto]" uvicorn websockets
    uvicorn examples.starlette_app:app --workers 4

    wscat -c ws://localhost:8000/chat -H "X-API-Key: alice"       # type a line, see the answer
    curl localhost:8000/session -H "X-API-Key: alice"             # the same session id in every worker

Without REDIS_URL each worker has its own token and session ids.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import anyio
import httpx
from anyio.abc import ObjectReceiveStream
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tokenmw import TokenBroker, TokenMiddleware, TokenmwError
from tokenmw.providers import ClientCredentials

broker = TokenBroker(
    {
        "model": ClientCredentials(
            token_url=os.environ["MODEL_TOKEN_URL"],
            client_id=os.environ["MODEL_CLIENT_ID"],
            client_secret=os.environ["MODEL_CLIENT_SECRET"],
        )
    },
    redis=os.environ.get("REDIS_URL"),
    secret_key=os.environ.get("SECRET_KEY"),
    missing_key="reject",
)


async def session(request: Request) -> JSONResponse:
    """Return the caller's session id."""
    return JSONResponse({"session_id": request.state.session_id})


async def chat(websocket: WebSocket) -> None:
    """Answer messages one after the other until the caller disconnects, which also cancels the current answer."""
    await websocket.accept()
    # A caller that sends faster than the model answers is read at the model's speed.
    questions_in, questions = anyio.create_memory_object_stream[str](max_buffer_size=1)
    async with anyio.create_task_group() as group, questions_in, questions:
        group.start_soon(answer_all, websocket, questions)
        async for question in websocket.iter_text():
            await questions_in.send(question)
        group.cancel_scope.cancel()


async def answer_all(websocket: WebSocket, questions: ObjectReceiveStream[str]) -> None:
    """Answer each question as JSON messages: `{"data": …}` for each event of the model, then `{"done": true}`."""
    with suppress(WebSocketDisconnect):  # `chat` sees the disconnect too, and cancels this task
        async for question in questions:
            try:
                async with aclosing(ask(websocket, question)) as events:
                    async for data in events:
                        await websocket.send_json({"data": data})
            except TokenmwError as error:
                await websocket.send_json({"error": str(error)})
            except httpx.HTTPStatusError as error:
                await websocket.send_json({"error": f"The model responded with {error.response.status_code}."})
            except httpx.TransportError:
                await websocket.send_json({"error": "The model cannot be reached."})
            else:
                await websocket.send_json({"done": True})


async def ask(websocket: WebSocket, question: str) -> AsyncGenerator[str]:
    """Ask the model, and yield the data of each event (HTML Standard, "server-sent events") as it comes."""
    model: httpx.AsyncClient = websocket.state.model
    # Resolved for each question, because a WebSocket may outlive many tokens. This costs nothing while the token is
    # valid; `websocket.state.tokens["model"]` would not wait for a new token after it has expired.
    token = await websocket.state.tokens.resolve("model")
    headers = {"Authorization": token.authorization, "X-Session-ID": websocket.state.session_id}
    body: dict[str, Any] = {"stream": True, "messages": [{"role": "user", "content": question}]}
    async with model.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        if answer.status_code == 401:
            await broker.invalidate(token)  # withdrawn before its expiry: the next question gets a new one
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                yield line.removeprefix("data:").removeprefix(" ")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, httpx.AsyncClient]]:
    """Share one client, and so its connections, between all callers."""
    async with httpx.AsyncClient(base_url=os.environ["MODEL_URL"], timeout=httpx.Timeout(5.0, read=120.0)) as model:
        yield {"model": model}


app = Starlette(
    routes=[Route("/session", session), WebSocketRoute("/chat", chat)],
    # `inject` fetches the token before the first connection.
    middleware=[Middleware(TokenMiddleware, broker=broker, inject=["model"])],
    lifespan=lifespan,
)
