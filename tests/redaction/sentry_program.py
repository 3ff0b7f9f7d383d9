"""A service whose errors are reported with Sentry, with every option that records more than the default does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any, Final, NoReturn

import httpx
import sentry_sdk
from fastapi import Depends, FastAPI
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.fastapi import FastApiIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.asgi_client import call, lifespan, scope_of
from tests.redaction.test_requests import drop, receive_nothing
from tests.redaction.test_tracebacks import KEY, SECRET
from tokenmw import Grant, Provider, Token, TokenBroker, TokenMiddleware, TokenUnavailable, provider_token
from tokenmw.fastapi import SessionID, Tokens, token_from
from tokenmw.providers import StaticToken, TokenHTTP, WeCom

__all__ = ["events"]

HEADERS: Final = [(b"x-api-key", KEY), (b"x-other", KEY), (b"cookie", b"a=" + KEY)]
UNAVAILABLE_REDIS: Final = f"redis://u:{SECRET}@127.0.0.1:9/0"


class _Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self.items: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        """Keep the items of one envelope."""
        self.items += [json.loads(item.get_bytes()) for item in envelope.items]


class Failing(Provider):
    """A provider of the program, with a bug."""

    __slots__ = ("_secret",)
    kind = "failing"

    def __init__(self) -> None:
        self._secret = SECRET

    def identity(self) -> tuple[object, ...]:
        """Return the secret."""
        return (self._secret,)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Fail after a request to a closed port."""
        await http.request("POST", "http://127.0.0.1:9/token", data={"secret": self._secret}, json=None)
        raise AssertionError


def tenant(_connection: HTTPConnection) -> NoReturn:
    """Fail to choose a provider."""
    raise LookupError("no such tenant")


async def tenant_later(_connection: HTTPConnection) -> NoReturn:
    """Fail to choose a provider, after a turn of the loop."""
    await asyncio.sleep(0)
    raise LookupError("no such tenant")


async def accepts(_connection: HTTPConnection, _key: str) -> object:
    """Accept a key, and send an event as a program may do anywhere."""
    sentry_sdk.capture_message("authenticate")
    return "caller"


async def refuses(_connection: HTTPConnection, _key: str) -> None:
    """Refuse a key."""


async def breaks(_connection: HTTPConnection, _key: str) -> NoReturn:
    """Raise instead of an answer."""
    raise LookupError("a bug in authenticate")


def names(_connection: HTTPConnection) -> list[str]:
    """Send an event, and return the names to inject."""
    sentry_sdk.capture_message("inject")
    return ["static", "failing"]


def broken_names(_connection: HTTPConnection) -> NoReturn:
    """Raise instead of names."""
    raise LookupError("a bug in inject")


def reporting(_connection: HTTPConnection, error: Exception) -> Response:
    """Report the error of a request, as a program's `on_error` may do."""
    sentry_sdk.capture_exception(error)
    return Response(status_code=503)


def broken_on_error(_connection: HTTPConnection, _error: Exception) -> NoReturn:
    """Raise instead of a response."""
    raise LookupError("a bug in on_error")


PROVIDERS: Final[dict[str, Any]] = {
    "static": StaticToken(SECRET),
    "failing": Failing(),
    "wecom": WeCom(corp_id="c", corp_secret=SECRET, base_url="http://127.0.0.1:9"),
    "tenant": tenant,
    "tenant_later": tenant_later,
}


async def bug(_request: Request) -> Response:
    """Raise an exception that the package does not know."""
    raise LookupError("a bug")


async def resolve(request: Request) -> Response:
    """Raise the error of a token."""
    await request.state.tokens.resolve(request.path_params["name"])
    return Response()


async def injected(request: Request) -> Response:
    """Raise the error of an injected token."""
    return Response(request.state.tokens["failing"].value)


async def message(_request: Request) -> Response:
    """Send an event, and a log line that becomes one."""
    sentry_sdk.capture_message("a message")
    logging.getLogger("program").error("a log line")
    return Response()


async def logged(request: Request) -> Response:
    """Log the error of a token."""
    try:
        await request.state.tokens.resolve("failing")
    except TokenUnavailable:
        logging.getLogger("program").exception("no token")
    return Response()


async def outgoing(request: Request) -> Response:
    """Send a token to a closed port."""
    async with httpx.AsyncClient() as client:
        await client.get("http://127.0.0.1:9/api", auth=request.state.tokens.auth(request.path_params["name"]))
    return Response()


async def websocket(websocket: WebSocket) -> None:
    """Raise the error of a token or a bug, before or after accepting the WebSocket."""
    if websocket.path_params["when"] == "after":
        await websocket.accept()
    if websocket.path_params["what"] == "bug":
        raise LookupError("a bug")
    await websocket.state.tokens.resolve("failing")


ROUTES: Final = [
    Route("/bug", bug),
    Route("/resolve/{name}", resolve),
    Route("/injected", injected),
    Route("/message", message),
    Route("/logged", logged),
    Route("/outgoing/{name}", outgoing),
    WebSocketRoute("/{when}/{what}", websocket),
]
PATHS: Final = (
    *("/bug", "/resolve/failing", "/resolve/tenant", "/resolve/tenant_later", "/resolve/unknown", "/injected"),
    *("/message", "/logged", "/outgoing/static", "/outgoing/wecom", "/outgoing/tenant"),
)
SOCKETS: Final = ("/before/bug", "/before/token", "/after/bug", "/after/token")
# Options of the broker and of the middleware that each path is called with.
OPTIONS: Final[tuple[tuple[dict[str, Any], dict[str, Any]], ...]] = (
    ({}, {"inject": ["static", "failing"]}),
    ({"authenticate": accepts}, {"inject": names, "on_error": reporting}),
    ({"authenticate": accepts}, {"inject": ["tenant"], "on_error": broken_on_error}),
)
# The same, for requests that do not reach the application.
REFUSING: Final[tuple[tuple[dict[str, Any], dict[str, Any]], ...]] = (
    ({"authenticate": refuses}, {"on_error": reporting}),
    ({"authenticate": refuses}, {"on_error": broken_on_error}),
    ({"authenticate": breaks}, {"on_error": reporting}),
    ({}, {"inject": broken_names}),
    ({"redis": UNAVAILABLE_REDIS, "session_policy": "required"}, {"on_error": reporting}),
)


async def starlette_requests() -> None:
    """Serve requests and WebSockets that fail in handlers, callables of the program, and before the application."""
    for of_broker, of_middleware in (*OPTIONS, *REFUSING):
        paths, sockets = (PATHS, SOCKETS) if (of_broker, of_middleware) in OPTIONS else (PATHS[:1], SOCKETS[:1])
        async with TokenBroker(PROVIDERS, **of_broker) as broker:
            middleware = [Middleware(TokenMiddleware, broker=broker, **of_middleware)]
            app = Starlette(routes=ROUTES, middleware=middleware)
            for kind, path in [*(("http", path) for path in paths), *(("websocket", path) for path in sockets)]:
                await reported(call(app, kind=kind, path=path, headers=HEADERS, query_string=b"key=" + KEY))


async def bare_middleware() -> None:
    """Serve requests of an application without a framework, whose errors a server would report."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/after":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/bug":
            raise LookupError("a bug")
        await scope["state"]["tokens"].resolve("failing")

    async with TokenBroker(PROVIDERS) as broker:
        for path in ("/bug", "/before", "/after"):
            for kind in ("http", "websocket"):
                scope = scope_of(kind, path=path, headers=HEADERS)
                await reported(TokenMiddleware(app, broker=broker)(scope, receive_nothing, drop))


def fastapi_app(broker: TokenBroker) -> FastAPI:
    """Make an application whose dependencies fail."""
    app = FastAPI(lifespan=broker.lifespan)

    def provider_of_tenant(connection: HTTPConnection) -> Provider:
        return Failing() if connection.url.path == "/failing" else tenant(connection)

    @app.get("/named")
    async def named(token: Annotated[Token, Depends(provider_token("failing"))]) -> str:
        return token.value

    @app.get("/callable")
    async def callable_(token: Annotated[Token, Depends(provider_token("tenant"))]) -> str:
        return token.value

    @app.get("/failing")
    @app.get("/nobody")
    async def chosen(token: Annotated[Token, Depends(token_from(provider_of_tenant))]) -> str:
        return token.value

    @app.get("/wrong")
    async def wrong(token: Annotated[Token, Depends(token_from(lambda: SECRET))]) -> str:
        return token.value

    @app.get("/session")
    async def session(session: SessionID, tokens: Tokens) -> str:
        raise LookupError(session[:1], len(tokens))

    return app


async def fastapi_requests() -> None:
    """Serve requests that fail in dependencies, without the middleware, with keys that are accepted and refused."""
    choices: tuple[dict[str, Any], ...] = (
        {},
        {"authenticate": accepts},
        {"authenticate": refuses},
        {"redis": UNAVAILABLE_REDIS, "session_policy": "required"},
    )
    for options in choices:
        app = fastapi_app(TokenBroker(PROVIDERS, **options))
        async with lifespan(app) as state:
            # The start refuses a route with an unknown name, if there is one by then.
            app.get("/unknown", dependencies=[Depends(provider_token("unknown"))])(accepts)
            for path in ("/named", "/callable", "/unknown", "/failing", "/nobody", "/wrong", "/session"):
                await reported(call(app, path=path, headers=HEADERS, state=dict(state)))


async def lifespans() -> None:
    """Start applications whose lifespan fails, and one whose broker cannot open."""

    @contextlib.asynccontextmanager
    async def broken(_app: Any) -> AsyncGenerator[None]:
        yield tenant(_app)

    async def fails_to_resolve(app: Starlette) -> None:
        del app
        async with broker:
            await broker.token("failing")

    broker = TokenBroker(PROVIDERS, redis=UNAVAILABLE_REDIS, secret_key=SECRET)
    middleware = [Middleware(TokenMiddleware, broker=broker, inject=["failing"])]

    async def started(app: Any) -> None:
        async with lifespan(app):
            pass

    for app in (Starlette(lifespan=broken, middleware=middleware), Starlette(lifespan=broker.lifespan_with(broken))):
        await reported(started(app))
    await reported(fails_to_resolve(Starlette()))


async def calls_of_the_broker() -> None:
    """Call the broker with arguments that cannot work, and use providers that fail."""
    wrong: Any = "not a broker"
    async with TokenBroker(PROVIDERS, redis=UNAVAILABLE_REDIS, session_policy="required") as broker:
        wrong = broker
        await reported(broker.session_id(SECRET))
        await reported(broker.reset_session(SECRET))
        await reported(wrong.invalidate(SECRET))
        await reported(wrong.hand_in("static", SECRET))
        await reported(broker.token("failing"))
        await reported(broker.token("wecom"))
        sentry_sdk.capture_message("outside of a request")


async def reported(call: Awaitable[object]) -> None:
    """Await a call, and report its error as a server does."""
    try:
        await call
    except Exception as error:  # noqa: BLE001  whatever it is
        sentry_sdk.capture_exception(error)


CASES: Final[tuple[Callable[[], Awaitable[None]], ...]] = (
    bare_middleware,  # first: the integration changes the class of a middleware
    starlette_requests,
    fastapi_requests,
    lifespans,
    calls_of_the_broker,
)


async def events() -> list[Any]:
    """Run all cases, and return what Sentry would send: errors, messages and traces."""
    kept = _Kept()
    statuses = set(range(400, 600))
    sentry_sdk.init(
        "http://key@127.0.0.1/1",
        transport=kept,
        integrations=[
            StarletteIntegration(failed_request_status_codes=statuses, middleware_spans=True),
            FastApiIntegration(failed_request_status_codes=statuses),
        ],
        max_request_body_size="always",
        max_value_length=100_000,
        traces_sample_rate=1.0,
        shutdown_timeout=0,
    )
    for case in CASES:
        await case()
    return kept.items
