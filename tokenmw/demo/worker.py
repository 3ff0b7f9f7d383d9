"""One worker of the demo: a small service behind the middleware. It reads its settings from stdin, as one JSON line."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route

from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.providers import ClientCredentials
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

__all__ = ["make_app", "serve"]


def make_app(credential: Mapping[str, Any], broker_options: Mapping[str, Any], *, status: str) -> Starlette:
    """Make the service. It answers each request with the caller's session id and the end of its token.

    At the path `status` it shows its status to everyone who reaches it: it listens on this machine only.
    """
    broker = TokenBroker({"crm": ClientCredentials(**credential)}, **broker_options)

    async def show(request: Request) -> Response:
        # Resolved on demand, not injected: the first requests find no token, and the workers must agree on one fetch.
        token = await request.state.tokens.resolve("crm")
        content = {
            "session_id": request.state.session_id,
            "token": f"…{token.value[-6:]}",  # enough to compare, not enough to use
            "seconds_left": round(token.expires_at - time.time()),
        }
        return Response(json.dumps(content, ensure_ascii=False) + "\n", media_type="application/json")

    routes = [Route("/", show), Mount(status, StatusApp(broker, allow_all=True))]
    return Starlette(routes=routes, middleware=[Middleware(TokenMiddleware, broker=broker, exempt=[f"{status}/*"])])


def serve() -> None:
    """Run the service until stdin closes, which it does when the demo ends in any way."""
    settings = json.loads(sys.stdin.readline())
    logging.basicConfig(stream=sys.stdout, format=f"worker {settings['worker']}: %(message)s")
    app = make_app(settings["credential"], settings["broker"], status=settings["status"])
    # A caller's open connection must not delay the end.
    config = uvicorn.Config(app, port=settings["port"], access_log=False, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)

    def stop_when_stdin_closes() -> None:
        # Not sys.stdin: Python aborts if a daemon thread holds its lock at exit.
        while os.read(0, 1024):
            pass
        server.should_exit = True

    threading.Thread(target=stop_when_stdin_closes, daemon=True).start()
    server.run()


if __name__ == "__main__":
    serve()
