"""A misspelt name in `provider_token` is found when the application starts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Host, Mount

from tests.asgi_client import Lifespan, lifespan
from tokenmw import ConfigurationError, Token, TokenBroker, TokenMiddleware, provider_token
from tokenmw.fastapi import token_from
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp

WRONG = provider_token("crmm")
RIGHT = provider_token("crm")
PASSING = Middleware(BaseHTTPMiddleware, dispatch=lambda request, get: get(request))
NEEDED = Security(WRONG)


def broker_of() -> TokenBroker:
    """Make a broker with two providers."""
    return TokenBroker({"crm": StaticToken("t"), "feishu": StaticToken("t")})


async def endpoint() -> str:
    """Answer."""
    return "ok"


async def nested(token: Annotated[Token, Depends(WRONG)]) -> str:
    """Need the token in a dependency."""
    return token.value


async def twice_nested(value: Annotated[str, Depends(nested)]) -> str:
    """Need the token in a dependency of a dependency."""
    return value


def in_route(app: FastAPI) -> None:
    """Need the token in a parameter."""

    @app.get("/contacts/{tenant}")
    async def route(tenant: str, token: Annotated[Token, Depends(WRONG)]) -> str:
        return tenant + token.value


def in_default(app: FastAPI) -> None:
    """Need the token in a parameter of the old style."""

    @app.post("/contacts/{tenant}")
    async def route(tenant: str, token: Token = NEEDED) -> str:
        return tenant + token.value


def in_tree(app: FastAPI) -> None:
    """Need it deep in the tree of dependencies."""
    app.get("/contacts/{tenant}", dependencies=[Depends(twice_nested)])(endpoint)


def in_router(app: FastAPI) -> None:
    """Need it for all routes of a router."""
    router = APIRouter(prefix="/contacts", dependencies=[Depends(WRONG)])
    router.get("/{tenant}")(endpoint)
    app.include_router(router)


def in_include(app: FastAPI) -> None:
    """Need it in a router inside another one, where it is included."""
    inner, outer = APIRouter(), APIRouter()
    inner.get("/{tenant}")(endpoint)
    outer.include_router(inner, prefix="/contacts")
    app.include_router(outer, dependencies=[Depends(nested)])


def in_websocket(app: FastAPI) -> None:
    """Need it in a WebSocket route."""
    app.websocket("/contacts/{tenant}", dependencies=[Depends(WRONG)])(endpoint)


def in_token_from(app: FastAPI) -> None:
    """Need it to choose a credential."""

    def choose(token: Annotated[Token, Depends(WRONG)]) -> StaticToken:
        return StaticToken(token.value)

    app.get("/contacts/{tenant}", dependencies=[Depends(token_from(choose))])(endpoint)


def in_mounted(app: FastAPI) -> None:
    """Need it in a mounted application."""
    inner = FastAPI()
    inner.get("/{tenant}", dependencies=[Depends(WRONG)])(endpoint)
    app.mount("/contacts", inner)


def in_mounted_deeper(app: FastAPI) -> None:
    """Need it in an application that Starlette mounts with a middleware."""
    inner = FastAPI()
    inner.get("/{tenant}", dependencies=[Depends(WRONG)])(endpoint)
    mount = Mount("/", inner, middleware=[PASSING])
    app.mount("/contacts", Starlette(routes=[mount]))


def in_host(app: FastAPI) -> None:
    """Need it in an application of a host."""
    inner = FastAPI()
    inner.get("/contacts/{tenant}", dependencies=[Depends(WRONG)])(endpoint)
    app.router.routes.append(Host("api.example", inner))


DECLARED: list[Callable[[FastAPI], None]] = [
    *(in_route, in_default, in_tree, in_router, in_include, in_websocket, in_token_from),
    *(in_mounted, in_mounted_deeper, in_host),
]


def by_lifespan(broker: TokenBroker) -> tuple[FastAPI, ASGIApp]:
    """Make an application with the broker's lifespan."""
    app = FastAPI(lifespan=broker.lifespan)
    return app, app


def by_lifespan_with(broker: TokenBroker) -> tuple[FastAPI, ASGIApp]:
    """Make an application with a lifespan of its own around it."""

    @asynccontextmanager
    async def mine(_app: FastAPI) -> AsyncGenerator[None]:
        yield

    app = FastAPI(lifespan=broker.lifespan_with(mine))
    return app, app


def by_middleware(broker: TokenBroker) -> tuple[FastAPI, ASGIApp]:
    """Make an application with the middleware."""
    app = FastAPI()
    app.add_middleware(TokenMiddleware, broker=broker)
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, get: get(request))
    return app, app


def by_wrapping(broker: TokenBroker) -> tuple[FastAPI, ASGIApp]:
    """Make an application inside the middleware."""
    app = FastAPI()
    return app, TokenMiddleware(app, broker=broker)


OPENED = [by_lifespan, by_lifespan_with, by_middleware, by_wrapping]


async def start(app: ASGIApp) -> dict[str, Any]:
    """Start an application, stop it if it starts, and return the reply to the start."""
    running = Lifespan(app)
    reply = dict(await running.tell("startup"))
    if reply["type"] == "lifespan.startup.complete":
        await running.tell("shutdown")
        await running.task
    else:
        with pytest.raises(ConfigurationError, match="crmm"):
            await running.task
    return reply


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("declare", DECLARED)
async def test_a_misspelt_name_stops_the_start(opened: Any, declare: Callable[[FastAPI], None]) -> None:
    """The text has the path, the name and the one that is meant."""
    broker = broker_of()
    app, served = opened(broker)
    declare(app)
    reply = await start(served)
    assert "lifespan.startup.failed" == reply["type"]
    text = "/contacts/{tenant} needs provider_token('crmm'), and the broker has no such provider: did you mean 'crm'?"
    assert text in reply["message"]
    assert "The broker has: crm, feishu." in reply["message"]
    assert broker._runtime is None


@pytest.mark.parametrize("opened", OPENED)
async def test_known_names_start(opened: Any) -> None:
    """The names that the broker has are accepted in all places."""
    app, served = opened(broker_of())
    app.get("/", dependencies=[Depends(RIGHT), Depends(provider_token("feishu"))])(endpoint)
    app.mount("/static", served if opened is by_wrapping else Starlette())  # an application may contain itself
    assert "lifespan.startup.complete" == (await start(served))["type"]


@pytest.mark.parametrize("overridden", [WRONG, provider_token("crmm"), nested, twice_nested])
async def test_overridden_dependencies_are_skipped(overridden: Any) -> None:
    """A test that overrides a dependency needs no provider for it, nor for those below it."""
    app = FastAPI(lifespan=broker_of().lifespan)
    app.get("/", dependencies=[Depends(twice_nested)])(endpoint)
    app.dependency_overrides[overridden] = lambda: "t"
    assert "lifespan.startup.complete" == (await start(app))["type"]


@pytest.mark.parametrize(
    "middleware", [[], [Middleware(BaseHTTPMiddleware, dispatch=lambda request, get: get(request))]]
)
async def test_overrides_of_a_mounted_application_count(middleware: list[Middleware]) -> None:
    """FastAPI reads the overrides of the application that the route belongs to."""
    app, inner = FastAPI(lifespan=broker_of().lifespan), FastAPI()
    inner.get("/", dependencies=[Depends(nested)])(endpoint)
    app.router.routes.append(Mount("/inner", inner, middleware=middleware))
    inner.dependency_overrides[nested] = lambda: "t"
    assert "lifespan.startup.complete" == (await start(app))["type"]
    inner.dependency_overrides.clear()
    app.dependency_overrides[nested] = lambda: "t"
    assert "lifespan.startup.failed" == (await start(app))["type"]


async def test_names_of_another_broker_are_accepted() -> None:
    """A program may have several brokers, and which one serves a route shows only in a request."""
    other = TokenBroker({"second": StaticToken("t")})
    inner = FastAPI(middleware=[Middleware(TokenMiddleware, broker=other)])
    inner.get("/", dependencies=[Depends(provider_token("second"))])(endpoint)
    app = FastAPI(lifespan=broker_of().lifespan)
    app.mount("/inner", inner)
    assert "lifespan.startup.complete" == (await start(app))["type"]


class Unusual:
    """An application whose attributes raise, or are of any type."""

    def __init__(self, attribute: object) -> None:
        self._attribute = attribute

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if isinstance(self._attribute, BaseException):
            raise self._attribute
        return self._attribute

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer lifespan events."""
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})


ATTRIBUTES: list[object] = [
    *(RuntimeError("broken"), KeyError("x"), RecursionError(), None, 7, "text", [1, None], {"a": 1}, object()),
    *(len, [[[]]], iter([1])),
]


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: repr(one)[:20])
async def test_an_unusual_application_starts(attribute: object) -> None:
    """What cannot be read is not checked."""
    app = TokenMiddleware(Unusual(attribute), broker=broker_of())
    async with lifespan(app):
        pass
    mounted = Starlette(routes=[Mount("/", Unusual(attribute))], lifespan=broker_of().lifespan)
    async with lifespan(mounted):
        pass


async def test_an_endless_application_starts() -> None:
    """The number of objects that are read is bounded."""

    class Endless:
        @property
        def app(self) -> Endless:
            return Endless()

    app = Starlette(routes=[Mount("/", Endless())], lifespan=broker_of().lifespan)  # type: ignore[arg-type]
    async with lifespan(app):
        pass


async def test_provider_token_without_a_call_is_found() -> None:
    """FastAPI would make a query parameter of its argument, with which a caller chooses the provider."""
    app = FastAPI(lifespan=broker_of().lifespan)
    app.get("/contacts", dependencies=[Depends(provider_token)])(endpoint)
    running = Lifespan(app)
    assert "lifespan.startup.failed" == (await running.tell("startup"))["type"]
    text = r"/contacts depends on provider_token itself: call it with the name of a provider, Depends\(provider_token\("
    with pytest.raises(ConfigurationError, match=text):
        await running.task
