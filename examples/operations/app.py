"""A service with a status page, probes and metrics, as compose.yml, kubernetes.yml and prometheus.yml run it.

    export REDIS_URL=redis://localhost:6379/0 SECRET_KEY=… CRM_TOKEN_URL=https://idp.example/oauth2/token CRM_SECRET=…
    export OPERATORS_PASSWORD=… PROMETHEUS_MULTIPROC_DIR=$(mktemp -d)
    pip install "tokenmw[crypto,prometheus]" uvicorn
    uvicorn app:app --app-dir examples/operations --workers 4

The status is at /_tokenmw, with the user name `operator` and the password of OPERATORS_PASSWORD. The metrics of all
workers are at /metrics; do not publish that path.
"""

from __future__ import annotations

import base64
import os
import secrets
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.observe.prometheus import PrometheusObserver
from tokenmw.providers import ClientCredentials
from tokenmw.status_app import StatusApp

CREDENTIALS: Final = f"operator:{os.environ['OPERATORS_PASSWORD']}".encode()

crm = ClientCredentials(token_url=os.environ["CRM_TOKEN_URL"], client_id="crm", client_secret=os.environ["CRM_SECRET"])
broker = TokenBroker(
    {"crm": crm},
    redis=os.environ["REDIS_URL"],
    secret_key=os.environ["SECRET_KEY"],
    observers=[PrometheusObserver()],
)


def is_operator(connection: HTTPConnection) -> bool:
    """Ask the browser for the password, and return True if it is right."""
    expected = "Basic " + base64.b64encode(CREDENTIALS).decode()
    given = connection.headers.get("authorization", "")
    if not secrets.compare_digest(given.encode(), expected.encode()):
        raise HTTPException(401, headers={"www-authenticate": 'Basic realm="tokenmw"'})
    return True


def metrics(request: Request) -> Response:
    """Return the metrics of all workers. Not async: starlette then calls it in a thread, because it reads files."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types for it
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def home(request: Request) -> JSONResponse:
    """Use the token; `resolve` raises 503 or 502 without one."""
    token = await request.state.tokens.resolve("crm")
    return JSONResponse({"session": request.state.session_id, "token_type": token.token_type})


app = Starlette(
    routes=[
        Route("/", home),
        Route("/metrics", metrics),
        Mount("/_tokenmw", StatusApp(broker, allow=is_operator, allow_actions=is_operator)),
    ],
    middleware=[Middleware(TokenMiddleware, broker=broker, inject=["crm"], exempt=["/metrics", "/_tokenmw/*"])],
)
