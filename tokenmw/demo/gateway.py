"""What each worker of the demo runs: a small service behind the middleware, with its settings in the environment."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.providers import ClientCredentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["CLIENT_ID", "Setting", "make_app", "masked", "serve"]

CLIENT_ID: Final = "demo"


class Setting:
    """Names of the environment variables that a worker reads."""

    WORKER = "TOKENMW_DEMO_WORKER"
    TOKEN_URL = "TOKENMW_DEMO_TOKEN_URL"
    CLIENT_SECRET = "TOKENMW_DEMO_CLIENT_SECRET"
    SECRET_KEY = "TOKENMW_DEMO_SECRET_KEY"
    NAMESPACE = "TOKENMW_DEMO_NAMESPACE"
    REDIS_URL = "TOKENMW_DEMO_REDIS_URL"


def make_app(environ: Mapping[str, str]) -> Starlette:
    """Make the service. It answers each request with the caller's session id and a masked token.

    Raises:
        KeyError: A setting is missing; only the Redis URL may be.
        ConfigurationError: A setting cannot work.
    """
    crm = ClientCredentials(
        token_url=environ[Setting.TOKEN_URL], client_id=CLIENT_ID, client_secret=environ[Setting.CLIENT_SECRET]
    )
    broker = TokenBroker(
        {"crm": crm},
        redis=environ.get(Setting.REDIS_URL),
        secret_key=environ[Setting.SECRET_KEY],
        namespace=environ[Setting.NAMESPACE],
    )
    worker = environ[Setting.WORKER]

    async def show(request: Request) -> Response:
        # On demand and not injected, so that the first requests find no token and have to agree on who fetches it.
        token = await request.state.tokens.resolve("crm")
        shown = {
            "worker": worker,
            "session_id": request.state.session_id,
            "token": masked(token.value),
            "seconds_left": round(token.expires_at - time.time()),
        }
        return Response(json.dumps(shown, ensure_ascii=False) + "\n", media_type="application/json")

    return Starlette(routes=[Route("/", show)], middleware=[Middleware(TokenMiddleware, broker=broker)])


def masked(value: str) -> str:
    """Return the end of a token: enough to see that two are the same, not enough to use it."""
    return f"…{value[-6:]}"


class _Server(uvicorn.Server):
    """Tells its port on stdout as soon as the application has started."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for listener in sockets or ():
            print(listener.getsockname()[1], flush=True)


def serve() -> None:
    """Run one worker on a free port. It ends when its stdin does, so it never outlives who started it."""
    config = uvicorn.Config(
        make_app(os.environ),
        lifespan="on",
        access_log=False,
        log_config=None,
        # A caller that holds its connection must not hold up the end.
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)

    def end_with_stdin() -> None:
        # Below Python's buffers: a thread that waits in their lock when the process ends would abort it.
        while os.read(0, 1024):
            pass
        server.should_exit = True

    threading.Thread(target=end_with_stdin, name="end with stdin", daemon=True).start()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        server.run(sockets=[listener])


if __name__ == "__main__":
    serve()
