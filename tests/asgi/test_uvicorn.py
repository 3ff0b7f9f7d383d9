"""Two workers under uvicorn with one Redis, and requests of httpx2, curl and websockets over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import anyio
import anyio.to_thread
import httpx2
import pytest
import uvicorn
import websockets
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

from tests.processes import Workers, receive, send
from tests.servers import RedisServer
from tokenmw import Token, TokenBroker, TokenMiddleware, TokenUnavailable, provider_token
from tokenmw.fastapi import SessionID, Tokens
from tokenmw.providers import ClientCredentials, StaticToken
from tokenmw.testing import ProviderServer

KEY = {"x-api-key": "k-1"}


async def busy() -> str:
    """Raise as a provider that has no token."""
    raise TokenUnavailable("busy", retry_after=7)


async def show(request: Request) -> Response:
    """Respond with the session id and the token."""
    return JSONResponse([request.state.session_id, request.state.tokens["crm"].value])


async def half(request: Request) -> Response:
    """Fail in the middle of a response."""

    async def body() -> AsyncGenerator[str]:
        yield "half"
        await request.state.tokens.resolve("busy")

    return StreamingResponse(body())


async def talk(websocket: WebSocket) -> None:
    """Send the session id and the token."""
    await websocket.accept()
    await websocket.send_json([websocket.state.session_id, websocket.state.tokens["crm"].value])


async def fail(websocket: WebSocket) -> None:
    """Use a token that is not there, before or after accepting."""
    if websocket.path_params["moment"] == "after":
        await websocket.accept()
    await websocket.state.tokens.resolve("busy")


def application(redis: str, token_url: str) -> TokenMiddleware:
    """Make the application of each worker."""
    crm = ClientCredentials(token_url=token_url, client_id="crm", client_secret="s3cret")
    broker = TokenBroker(
        {"crm": crm, "busy": StaticToken(busy)}, redis=redis, secret_key="a-secret-of-some-length", missing_key="reject"
    )
    api = FastAPI()

    @api.get("/")
    async def route(session: SessionID, crm: Annotated[Token, Depends(provider_token("crm"))]) -> list[str]:
        return [session, crm.value]

    @api.websocket("/before")
    async def before(websocket: WebSocket, token: Annotated[Token, Depends(provider_token("busy"))]) -> None:
        await websocket.accept()

    @api.websocket("/after")
    async def after(websocket: WebSocket, tokens: Tokens) -> None:
        await websocket.accept()
        await tokens.resolve("busy")

    routes = [Route("/", show), Route("/half", half), WebSocketRoute("/", talk)]
    routes += [WebSocketRoute("/starlette/{moment}", fail), Mount("/fastapi", api)]
    return TokenMiddleware(Starlette(routes=routes), broker=broker, inject=["crm"])


async def serve(*, redis: str, token_url: str) -> bool:
    """Serve on a free port, as one worker, until the test says stop."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(redis, token_url), log_level="critical", lifespan="on"))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    send(listener.getsockname()[1])
    await anyio.to_thread.run_sync(receive)
    server.should_exit = True
    await serving
    listener.close()
    return server.started


@contextlib.asynccontextmanager
async def workers(redis_server: RedisServer, provider: ProviderServer, *, count: int) -> AsyncGenerator[list[int]]:
    """Run workers, and yield their ports."""
    with provider.running() as base:
        arguments = {"redis": redis_server.url, "token_url": f"{base}/oauth2/token"}
        async with Workers("tests.asgi.test_uvicorn:serve", processes=count, arguments=arguments) as running:
            yield await running.receive()
            await running.send("stop")
            assert [True] * count == await running.results()


async def by_curl(url: str, *headers: str) -> Any:
    """Return the response to a request of curl, or None if curl is not installed."""
    if shutil.which("curl") is None:
        return None
    lines = [part for header in headers for part in ("-H", header)]
    done = await anyio.run_process(["curl", "--noproxy", "*", "-sS", "--fail", *lines, url])
    return json.loads(done.stdout)


async def by_websocket(port: int, path: str = "/") -> Any:
    """Open a WebSocket, and return its first message."""
    async with websockets.connect(f"ws://127.0.0.1:{port}{path}", additional_headers=KEY, proxy=None) as socket_:
        return json.loads(await socket_.recv())


async def test_one_key_has_one_session_id_in_all_workers(redis_server: RedisServer) -> None:
    """With all three clients, in Starlette and FastAPI, in both workers; and there is one fetch in all."""
    provider = ProviderServer()
    async with workers(redis_server, provider, count=2) as ports, httpx2.AsyncClient(trust_env=False) as client:
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        answers = [(await client.get(url, headers=KEY)).json() for url in urls]
        answers += [(await client.get(f"{url}/fastapi/", headers=KEY)).json() for url in urls]
        answers += [await by_websocket(port) for port in ports]
        answers += filter(None, [await by_curl(url, "Authorization: Bearer k-1") for url in urls])
        assert 1 == len({tuple(answer) for answer in answers})
        others = {(await client.get(url, headers={"x-api-key": "k-2"})).json()[0] for url in urls}
        assert 1 == len(others - {answers[0][0]})
        refused = await client.get(urls[0])
        assert (401, "Bearer") == (refused.status_code, refused.headers["www-authenticate"])
        assert "application/problem+json" == refused.headers["content-type"]
    assert 1 == provider.calls["oauth2"]


async def test_a_websocket_gets_an_error_that_its_state_allows(redis_server: RedisServer) -> None:
    """It is a denial response before the handshake, and 1011 after it; a refused key is a 401."""
    async with workers(redis_server, ProviderServer(), count=1) as [port]:
        for framework in ("starlette", "fastapi"):
            with pytest.raises(websockets.InvalidStatus) as denied:
                await by_websocket(port, f"/{framework}/before")
            assert 503 == denied.value.response.status_code
            assert int(denied.value.response.headers["retry-after"]) > 0
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await by_websocket(port, f"/{framework}/after")
            assert closed.value.rcvd is not None
            assert 1011 == closed.value.rcvd.code
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(f"ws://127.0.0.1:{port}/", proxy=None):
                pass
        assert 401 == refused.value.response.status_code


async def test_an_error_in_the_body_closes_the_connection(redis_server: RedisServer) -> None:
    """The exception reaches the server, and the worker continues to serve."""
    async with (
        workers(redis_server, ProviderServer(), count=1) as [port],
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(f"http://127.0.0.1:{port}/half", headers=KEY)
        assert 200 == (await client.get(f"http://127.0.0.1:{port}/", headers=KEY)).status_code
