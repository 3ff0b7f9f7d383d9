"""Serves an application with uvicorn in the running event loop, and calls it over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from tokenmw import TokenBroker
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp

__all__ = ["AT", "client_of", "everyone", "serve", "serve_status"]

AT: Final = "/_tokenmw"


def everyone(_connection: object) -> bool:
    """Allow every request."""
    return True


@contextlib.asynccontextmanager
async def serve(app: ASGIApp) -> AsyncGenerator[str]:
    """Serve an application on a free port, and yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


@contextlib.asynccontextmanager
async def client_of(app: ASGIApp) -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve an application, and yield a client of it."""
    async with serve(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


@contextlib.asynccontextmanager
async def serve_status(broker: TokenBroker, **options: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """Mount the status of a broker in an application that opens it, and yield a client."""
    routes = [Mount(AT, StatusApp(broker, **(options or {"allow_all": True})))]
    async with client_of(Starlette(routes=routes, lifespan=broker.lifespan)) as client:
        yield client
