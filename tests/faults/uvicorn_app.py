"""The application that uvicorn serves in a test; each of its worker processes imports it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from tokenmw import TokenBroker, TokenMiddleware

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["make"]


async def show(request: Request) -> JSONResponse:
    """Return the process id and the session id."""
    return JSONResponse([os.getpid(), request.state.session_id])


def make() -> Starlette:
    """Make the application in a worker process."""
    broker = TokenBroker({}, redis=os.environ["TOKENMW_TEST_REDIS"], secret_key="a secret for the tests only")
    return Starlette(routes=[Route("/", show)], middleware=[Middleware(TokenMiddleware, broker=broker)])
