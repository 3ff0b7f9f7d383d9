"""`exempt` names the requests that are served without a check of the caller, and opens nothing else."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Scope
from starlette.websockets import WebSocket

from tests.asgi_client import answering, call
from tokenmw import (
    APIKeyRefused,
    APIKeySource,
    ConfigurationError,
    Token,
    TokenBroker,
    TokenMiddleware,
    provider_token,
    request_tokens,
    session_id,
)
from tokenmw.asgi.exempt import Exempt
from tokenmw.broker import STATE_KEY
from tokenmw.fastapi import token_from
from tokenmw.providers import StaticToken

KEY = (b"x-api-key", b"k-1")
EXEMPT = ["/", "/docs", "/a b", "/static/*"]


@pytest.fixture
def calls() -> list[str]:
    """Return the keys that `authenticate` was called with."""
    return []


@pytest.fixture
async def broker(calls: list[str]) -> Any:
    """Open a broker that checks callers."""

    async def authenticate(_connection: HTTPConnection, key: str) -> str | None:
        calls.append(key)
        return key if key == "k-1" else None

    async with TokenBroker({"a": StaticToken("t")}, authenticate=authenticate, missing_key="reject") as broker:
        yield broker


async def state_of(scope: Scope) -> list[str]:
    """Return the names in a connection's state, without the broker's own."""
    return sorted(name for name in scope["state"] if name != STATE_KEY)


def guarded(broker: TokenBroker, exempt: Any = EXEMPT, **options: Any) -> TokenMiddleware:
    """Make an application that answers with the names in a request's state."""
    return TokenMiddleware(answering(state_of), broker=broker, exempt=exempt, inject=["a"], **options)


@pytest.mark.parametrize("path", ["/", "/docs", "/a b", "/static/", "/static/a.js", "/static/a/b.c", "/static/a;v=1"])
@pytest.mark.parametrize("headers", [[], [KEY], [(b"x-api-key", b"wrong")]])
async def test_an_exempt_request_has_nothing_of_the_middleware(
    broker: TokenBroker, calls: list[str], path: str, headers: Any
) -> None:
    """No check, no caller, no session id, no tokens: with a key or without, code that needs one fails."""
    app = guarded(broker)
    for _ in range(2):
        answer = await call(app, path=path, headers=headers)
        assert (200, []) == (answer.status, answer.json)
    assert not calls
    assert 0 == broker.status().sessions


NOT_EXEMPT = [
    # Another path.
    "/docs/",
    "/docs/x",
    "/docsx",
    "/DOCS",
    "/doc",
    "/static",
    "/Static/a",
    "/staticx/a",
    "/admin",
    "",
    "*",
    "docs",
    # Other ways to write a path, which an application may understand otherwise.
    "//docs",
    "//",
    "/./docs",
    "/x/../docs",
    "/docs/.",
    "/docs/..",
    "/static/../admin",
    "/static/./a",
    "/static/a/..",
    "/static/..",
    "/static//admin",
    "/static/..;/admin",
    "/static/.;/admin",
    "/static/%2e%2e/admin",
    "/static/%2e%2e%2fadmin",
    "/static/a%2F..%2F..%2Fadmin",
    "/static/..\\admin",
    "/static\\..\\admin",
    "/static/\x00",
    "/static/a\nb",
    "/static/\x7f",
    "/static/\ufffd\ufffd/admin",
    "/docs\x00",
    "/docs%00",
    "/docs?x",
    "/docs#x",
    "/docs;x",
    "/docs ",
    " /docs",
    "/\uff44ocs",
]


@pytest.mark.parametrize("path", NOT_EXEMPT)
async def test_any_other_path_is_checked(broker: TokenBroker, path: str) -> None:
    """HTTP and WebSocket alike."""
    app = guarded(broker)
    assert 401 == (await call(app, path=path, raw_path=None)).status
    assert 200 == (await call(app, path=path, headers=[KEY], raw_path=None)).status
    closed = await call(app, kind="websocket", path=path)
    assert ["websocket.close"] == closed.kinds


@pytest.mark.parametrize(
    "raw_path", [b"/static%2Fa", b"/static/%2e%2e%2fadmin", b"/static/a%2fb", b"/static/a%5cb", b"/%64ocs%2f"]
)
async def test_an_encoded_slash_is_not_exempt(broker: TokenBroker, raw_path: bytes) -> None:
    """The server has decoded it in `path`; an application that routes by `raw_path` would see another path."""
    app = guarded(broker)
    assert 401 == (await call(app, path="/static/a", raw_path=raw_path)).status
    assert 200 == (await call(app, path="/static/a b", raw_path=b"/static/a%20b")).status
    assert 200 == (await call(app, path="/docs", raw_path=b"/%64ocs")).status


async def test_a_path_with_surrogates_is_not_exempt() -> None:
    """A server may decode bytes that are not UTF-8 in this way."""
    assert not await Exempt(["/static/*"]).covers({"path": "/static/\udcc0\udcae/admin"})


async def test_a_websocket_can_be_exempt(broker: TokenBroker) -> None:
    """By the same paths."""

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(await state_of(websocket.scope))

    routes = [WebSocketRoute("/docs", accept), WebSocketRoute("/other", accept)]
    app = TokenMiddleware(Starlette(routes=routes), broker=broker, exempt=EXEMPT)
    assert ["websocket.accept", "websocket.send"] == (await call(app, kind="websocket", path="/docs")).kinds
    assert ["websocket.close"] == (await call(app, kind="websocket", path="/other")).kinds


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        ("/api/docs", "/api", 200),  # a server or a proxy that keeps the prefix
        ("/docs", "/api", 200),  # a proxy that strips it
        ("/apidocs", "/api", 401),
        ("/api/api/docs", "/api", 401),
        ("/api", "/api", 401),
        ("/api/", "/api", 200),
        ("/api//docs", "/api", 401),
        ("/../docs", "/..", 401),
        ("/api/docs", "", 401),
    ],
)
async def test_paths_are_those_below_the_root_path(broker: TokenBroker, path: str, root_path: str, status: int) -> None:
    """As Starlette routes them."""
    assert status == (await call(guarded(broker), path=path, root_path=root_path)).status


async def test_paths_of_a_mounted_application_are_its_own(broker: TokenBroker) -> None:
    """`/docs` of an application that is mounted at `/v1` is `/v1/docs` of the whole."""
    inner = guarded(broker)
    app = Starlette(routes=[Mount("/v1", inner), Mount("/{tenant}/v2", inner), Mount("/", answering(state_of))])
    paths = {"/v1/docs": 200, "/v1/admin": 401, "/v1/v1/docs": 401, "/acme/v2/docs": 200, "/../v2/docs": 401}
    assert paths == {path: (await call(app, path=path)).status for path in paths}


@pytest.mark.parametrize(
    ("exempt", "message"),
    [
        ("/docs", r"takes a list of paths, not a lone string: \['/docs'\]"),
        (b"/docs", "lone string"),
        (None, "takes a list of paths"),
        (5, "takes a list of paths"),
        ([""], "''.*begins with a slash"),
        (["docs"], "'docs'.*begins with a slash"),
        (["*"], "'\\*'.*begins with a slash"),
        (["/*"], r"'/\*'.*every path.*missing_key"),
        (["/a*"], r"'/a\*'.*\"/static/\*\""),
        (["/a/*/b"], r"'/a/\*/b'.*\"/static/\*\""),
        (["/a/**"], r"'/a/\*\*'.*\"/static/\*\""),
        (["/items/{id}"], "'/items/{id}'.*callable"),
        (["/a?b=1"], "'/a\\?b=1'"),
        (["/a#b"], "'/a#b'"),
        (["/a%20b"], "'/a%20b'.*decoded"),
        (["/a/../b"], "'/a/../b'"),
        (["/a//b"], "'/a//b'"),
        (["/./*"], "'/./\\*'"),
        (["/a\\b"], "a.*b'"),
        (["/a\n"], "'/a"),
        ([b"/docs"], "b'/docs'"),
        ([None], "None"),
        ([re.compile("/docs")], "callable"),
        (lambda: True, r"must be a callable \(connection\) -> bool"),
        (divmod, r"must be a callable \(connection\) -> bool"),
    ],
)
def test_an_exempt_that_cannot_work_is_refused(exempt: Any, message: str) -> None:
    """When the middleware is made, with the option and the fix."""
    with pytest.raises(ConfigurationError, match=r"TokenMiddleware\(exempt=…\).*" + message):
        TokenMiddleware(answering(state_of), broker=TokenBroker({}), exempt=exempt)


async def test_a_generator_function_exempts_nothing(broker: TokenBroker) -> None:
    """Its result is neither True nor False."""

    async def generator(_connection: HTTPConnection) -> Any:
        yield False

    with pytest.raises(ConfigurationError, match="True or False, not async_generator"):
        await call(guarded(broker, generator))


async def test_a_callable_decides(broker: TokenBroker) -> None:
    """Sync or async, by anything that a connection has."""

    def by_method(connection: HTTPConnection) -> bool:
        return connection.scope.get("method") == "HEAD"

    async def by_path(connection: HTTPConnection) -> bool:
        return connection.url.path == "/hooks"

    assert 200 == (await call(guarded(broker, by_method), method="HEAD")).status
    assert 401 == (await call(guarded(broker, by_method))).status
    assert [] == (await call(guarded(broker, by_path), path="/hooks")).json
    assert 401 == (await call(guarded(broker, by_path), path="/hooks/x")).status


@pytest.mark.parametrize("answer", [None, 1, 0, "", "no", [], re.match("/", "/")])
async def test_an_answer_that_is_no_bool_exempts_nothing(broker: TokenBroker, answer: object) -> None:
    """Neither a missing `return` nor a truthy object; the error names the option."""

    def now(_connection: HTTPConnection) -> Any:
        return answer

    async def later(_connection: HTTPConnection) -> Any:
        return answer

    for exempt in (now, later):
        with pytest.raises(ConfigurationError, match=r"TokenMiddleware\(exempt=…\) must return True or False, not"):
            await call(guarded(broker, exempt))


async def test_an_exception_of_the_callable_propagates(broker: TokenBroker) -> None:
    """It is a fault of the program, so the request fails; `APIKeyRefused` is answered."""

    def broken(_connection: HTTPConnection) -> bool:
        raise LookupError

    def refuse(_connection: HTTPConnection) -> bool:
        raise APIKeyRefused("No.")

    with pytest.raises(LookupError):
        await call(guarded(broker, broken))
    assert 401 == (await call(guarded(broker, refuse))).status


@pytest.mark.parametrize("dependency", [session_id, request_tokens, provider_token("a")])
async def test_a_dependency_in_an_exempt_route_checks_the_caller(
    broker: TokenBroker, calls: list[str], dependency: Any
) -> None:
    """An exempt path opens no tokens and no sessions."""

    async def use(scope: Scope) -> Any:
        await dependency(HTTPConnection(scope))
        return [scope["state"]["caller"], await session_id(HTTPConnection(scope))]

    app = TokenMiddleware(answering(use), broker=broker, exempt=["/"])
    for headers in ([], [(b"x-api-key", b"wrong")]):
        assert 401 == (await call(app, headers=headers)).status
    answer = await call(app, headers=[KEY])
    assert ["k-1", await broker.session_id("k-1")] == answer.json
    assert ["wrong", "k-1"] == calls


@pytest.mark.parametrize("dependency", [session_id, request_tokens, provider_token("a")])
async def test_the_check_of_an_exempt_route_has_the_middlewares_options(dependency: Any) -> None:
    """Not the broker's: they may let a request in that the middleware would refuse."""

    async def use(scope: Scope) -> Any:
        await dependency(HTTPConnection(scope))
        return await session_id(HTTPConnection(scope))

    async with TokenBroker({"a": StaticToken("t")}) as broker:
        source = APIKeySource(headers=["x-other"])
        app = TokenMiddleware(answering(use), broker=broker, exempt=["/"], missing_key="reject", api_key=source)
        assert 401 == (await call(app)).status
        assert 401 == (await call(app, headers=[KEY])).status
        assert await broker.session_id("k-1") == (await call(app, headers=[(b"x-other", b"k-1")])).json


def test_token_from_in_an_exempt_route_checks_the_caller() -> None:
    """Before it calls the dependency that chooses the credential."""
    chosen: list[str] = []

    async def choose() -> StaticToken:
        chosen.append("called")
        return StaticToken("t")

    api = FastAPI()

    async def use(token: Any) -> str:
        return str(token.value)

    # FastAPI cannot resolve the text of an annotation that names a local function.
    use.__annotations__ = {"token": Annotated[Token, Depends(token_from(choose))]}
    api.get("/open")(use)
    api.get("/other")(use)
    broker = TokenBroker({}, missing_key="reject")
    api.add_middleware(TokenMiddleware, broker=broker, exempt=["/open", "/openapi.json"])
    with TestClient(api) as client:
        assert [401, 401, 200] == [client.get(path).status_code for path in ("/open", "/other", "/openapi.json")]
        assert not chosen
        assert [200, 200] == [client.get(path, headers={"x-api-key": "k"}).status_code for path in ("/open", "/other")]


async def test_an_exempt_inner_middleware_leaves_the_outer_ones_work_alone(broker: TokenBroker) -> None:
    """Of two middlewares of one broker, one checks, and the other one is exempt."""
    inner = guarded(broker, ["/"])
    app = TokenMiddleware(inner, broker=broker, inject=["a"])
    assert 401 == (await call(app)).status
    assert ["caller", "session_id", "tokens"] == (await call(app, headers=[KEY])).json
    # The other way around, the inner one checks.
    app = TokenMiddleware(TokenMiddleware(answering(state_of), broker=broker), broker=broker, exempt=["/"])
    assert 401 == (await call(app)).status
    assert ["caller", "session_id", "tokens"] == (await call(app, headers=[KEY])).json


async def test_a_shared_state_shows_nothing_of_another_connection(broker: TokenBroker) -> None:
    """A server that gives all connections one state would show the session of another caller in an exempt request."""
    app, state = guarded(broker), dict[str, Any]()
    assert ["caller", "session_id", "tokens"] == (await call(app, path="/admin", headers=[KEY], state=state)).json
    assert [] == (await call(app, path="/docs", state=state)).json
    assert ["caller", "session_id", "tokens"] == (await call(app, path="/admin", headers=[KEY], state=state)).json


async def test_errors_of_an_exempt_route_are_answered_as_others(broker: TokenBroker) -> None:
    """By `on_error`."""

    async def refuse(_scope: Scope) -> None:
        raise APIKeyRefused("The signature is wrong.")

    answer = await call(TokenMiddleware(answering(refuse), broker=broker, exempt=["/"]))
    assert (401, "application/problem+json") == (answer.status, answer.headers["content-type"])


async def test_without_sessions_an_exempt_request_is_not_checked(broker: TokenBroker, calls: list[str]) -> None:
    """`sessions=False` still checks all others."""
    app = guarded(broker, sessions=False)
    assert 200 == (await call(app, path="/docs")).status
    assert 401 == (await call(app, path="/admin")).status
    assert ["caller", "tokens"] == (await call(app, path="/admin", headers=[KEY])).json
    assert ["k-1"] == calls


def test_a_background_task_of_an_exempt_route_has_no_tokens() -> None:
    """The state stays empty until the end of the request."""
    seen: list[bool] = []

    async def route(request: Request) -> JSONResponse:
        task = BackgroundTask(lambda: seen.append(hasattr(request.state, "tokens")))
        return JSONResponse({}, background=task)

    middleware = [Middleware(TokenMiddleware, broker=TokenBroker({}, missing_key="reject"), exempt=["/"])]
    with TestClient(Starlette(routes=[Route("/", route)], middleware=middleware)) as client:
        assert 200 == client.get("/").status_code
    assert [False] == seen
