"""An LLM gateway: callers use your API keys, and the model's API gets your token and the caller's session id.

    export MODEL_URL=https://llm.example MODEL_TOKEN_URL=https://idp.example/token
    export MODEL_CLIENT_ID=gateway MODEL_CLIENT_SECRET=…
    export REDIS_URL=redis://localhost:6379/0 SECRET_KEY=…        # for several workers
    pip install "tokenmw[fastapi,crypto]" uvicorn
    uvicorn examples.llm_gateway:app --workers 4

    curl -N localhost:8000/v1/chat/completions -H "Authorization: Bearer alice" -H "Content-Type: application/json" \
        -d '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'

Without REDIS_URL each worker has its own token and session ids.
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

# A model may need long for its first word, but a connection is made within seconds or not at all.
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
    """Share one client, and so its connections, between all requests."""
    limits = httpx.Limits(max_connections=1_000, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=os.environ["MODEL_URL"], timeout=TIMEOUT, limits=limits) as model:
        yield {"model": model}


app = FastAPI(lifespan=lifespan)
# `inject` fetches the token before the first request and keeps it fresh.
app.add_middleware(TokenMiddleware, broker=broker, inject=["model"])


@app.post("/v1/chat/completions")
async def complete(request: Request, session: SessionID, tokens: Tokens) -> StreamingResponse:
    """Forward a completion request, and stream the model's response back chunk by chunk."""
    model: httpx.AsyncClient = request.state.model
    upstream = model.build_request(
        "POST",
        request.url.path,
        # The whole body, not a stream: it is sent twice if the model's API rejects the first token.
        content=await request.body(),
        headers={
            "Content-Type": request.headers.get("content-type", "application/json"),
            # A compressed stream arrives in blocks instead of single words.
            "Accept-Encoding": "identity",
            "X-Session-ID": session,
        },
    )
    sending = model.send(upstream, auth=tokens.auth("model"), stream=True)
    try:
        response = await while_connected(request, sending)
    except httpx.TimeoutException:
        raise HTTPException(504, "The model did not respond in time.") from None
    except httpx.TransportError:
        raise HTTPException(502, "The model cannot be reached.") from None
    if response.status_code in {401, 403}:
        # The status is about our token; passed on, it would mean that the caller's API key is wrong.
        await response.aclose()
        raise HTTPException(502, "The model rejects this gateway's token.")
    return Relay(response)


class Relay(StreamingResponse):
    """Passes on an upstream response, errors with their status included.

    The upstream request is closed when this response ends, after the last chunk, a disconnect or an error. If the
    upstream breaks off, this response breaks off too, so that a caller does not mistake half a response for a whole.
    """

    def __init__(self, response: httpx.Response) -> None:
        headers = {name: response.headers[name] for name in PASSED_BACK if name in response.headers}
        super().__init__(response.aiter_raw(), response.status_code, headers)
        self.response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Not in a generator, which would never run if the caller disconnects before the first chunk.
            await self.response.aclose()


async def while_connected(request: Request, sending: Awaitable[httpx.Response]) -> httpx.Response:
    """Wait for the model's response while the caller is connected: a model bills for output that no caller reads."""
    response = asyncio.ensure_future(sending)
    disconnect = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({response, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not response.done():
            raise HTTPException(499, "The caller has disconnected.")
        return response.result()
    finally:
        response.cancel()
        disconnect.cancel()
        await asyncio.wait({response, disconnect})


async def disconnected(request: Request) -> None:
    """Wait until the caller disconnects. The body has been read, so no other message is expected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
