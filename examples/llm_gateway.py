"""An LLM gateway: callers use API keys of yours, the model's API gets your token and the caller's session id.

    export MODEL_URL=https://llm.example MODEL_TOKEN_URL=https://idp.example/token
    export MODEL_CLIENT_ID=gateway MODEL_CLIENT_SECRET=…
    export REDIS_URL=redis://localhost:6379/0 SECRET_KEY=…        # for several workers
    pip install "tokenmw[fastapi,crypto]" uvicorn
    uvicorn examples.llm_gateway:app --workers 4

    curl -N localhost:8000/v1/chat/completions -H "Authorization: Bearer alice" -H "Content-Type: application/json" \
        -d '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'

Without REDIS_URL each worker has a token and session ids of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.fastapi import SessionID, Tokens
from tokenmw.providers import ClientCredentials

# A model may think for long before its first word, but a connection to it is made at once or never.
TIMEOUT: Final = httpx.Timeout(5.0, read=120.0)
PASSED_BACK: Final = ("cache-control", "content-encoding", "content-type", "retry-after", "x-request-id")

broker = TokenBroker(
    {
        "model": ClientCredentials(
            token_url=os.environ["MODEL_TOKEN_URL"],
            client_id=os.environ["MODEL_CLIENT_ID"],
            client_secret=os.environ["MODEL_CLIENT_SECRET"],
            scope=os.environ.get("MODEL_SCOPE", ""),
        )
    },
    redis=os.environ.get("REDIS_URL"),
    secret_key=os.environ.get("SECRET_KEY"),
    missing_key="reject",
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, httpx.AsyncClient]]:
    """Keep one client, and so its connections, for all requests."""
    limits = httpx.Limits(max_connections=1_000, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=os.environ["MODEL_URL"], timeout=TIMEOUT, limits=limits) as model:
        yield {"model": model}


app = FastAPI(lifespan=lifespan)
# `inject` gets the token before the first request and keeps it fresh.
app.add_middleware(TokenMiddleware, broker=broker, inject=["model"])


@app.post("/v1/chat/completions")
async def complete(request: Request, session: SessionID, tokens: Tokens) -> StreamingResponse:
    """Send a completion on, and its answer back, chunk by chunk as the model sends it."""
    model: httpx.AsyncClient = request.state.model
    upstream = model.build_request(
        "POST",
        request.url.path,
        # Whole, and not as a stream: it has to be sent twice if the model's API refuses the first token.
        content=await request.body(),
        headers={
            "Content-Type": request.headers.get("content-type", "application/json"),
            # A compressed stream comes in blocks; words are to come one by one.
            "Accept-Encoding": "identity",
            "X-Session-ID": session,
        },
    )
    sending = model.send(upstream, auth=tokens.auth("model"), stream=True)
    try:
        answer = await while_connected(request, sending)
    except httpx.TimeoutException:
        raise HTTPException(504, "The model does not answer in time.") from None
    except httpx.TransportError:
        raise HTTPException(502, "The model cannot be reached.") from None
    if answer.status_code in {401, 403}:
        # This is about our token. Passed on, it would tell callers that their own API key is wrong.
        await answer.aclose()
        raise HTTPException(502, "The model refuses this gateway.")
    return Relay(answer)


class Relay(StreamingResponse):
    """Passes on an upstream answer, errors with their status included.

    However it ends, by the last chunk, by a caller who hangs up or by an error, the upstream request ends with it. If
    the upstream breaks off, so do we: a caller must not take half an answer for a whole one.
    """

    def __init__(self, answer: httpx.Response) -> None:
        headers = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
        super().__init__(answer.aiter_raw(), answer.status_code, headers)
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Here and not in a generator, which never runs if the caller has gone before the first chunk.
            await self.answer.aclose()


async def while_connected(request: Request, sending: Awaitable[httpx.Response]) -> httpx.Response:
    """Wait for an answer, but no longer than somebody waits for ours: tokens that nobody reads are paid for, too."""
    answer = asyncio.ensure_future(sending)
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HTTPException(499, "The caller has hung up.")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.wait({answer, gone})


async def disconnected(request: Request) -> None:
    """Wait until the caller hangs up. The body has been read, so there is nothing else to receive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
