"""An API over real HTTP, brokers whose tokens it accepts, and clients of both libraries."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tokenmw import Grant, Provider, Token, TokenBroker
from tokenmw.providers import TokenHTTP
from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest
from tokenmw.testing import ManualClock
from tokenmw.testing.provider_server.running import running_app

PLACES = ("authorization", "header", "query")


class Numbered(Provider):
    """A provider of the tokens t-1, t-2, …, in the place that a test chooses."""

    __slots__ = ("allow_http", "asked", "hosts", "name", "place", "reads_body")
    kind = "numbered"

    def __init__(
        self,
        name: str = "a",
        *,
        place: str = "authorization",
        hosts: frozenset[str] | None = frozenset({"127.0.0.1"}),
        allow_http: bool = False,
        reads_body: bool = False,
    ) -> None:
        self.name = name
        self.place = place
        self.hosts = hosts
        self.allow_http = allow_http
        self.reads_body = reads_body
        self.asked: list[str] = []

    def identity(self) -> tuple[object, ...]:
        return (self.name,)

    async def fetch(self, http: TokenHTTP) -> Grant:
        self.asked.append(f"t-{len(self.asked) + 1}")
        return Grant(self.asked[-1], expires_in=3600)

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        if self.place == "authorization":
            request.headers["Authorization"] = token.authorization
        elif self.place == "header":
            request.headers["x-api-token"] = token.value
        else:
            request.url = request.url.copy_set_param("access_token", token.value)

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        if not self.reads_body:
            return answer.status == 401
        return None if answer.body is None else b'"errcode": 40014' in answer.body


class API:
    """Accepts every token that is not in `refused`, in any place, and records the requests.

    Attributes:
        seen: The token of each request, or "".
        bodies: The body of each request.
        urls: The URL of each request.
        refused: Tokens that are invalid.
        refuse: Returns the answer to an invalid token.
        accept: Returns the answer to any other token.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bodies: list[bytes] = []
        self.urls: list[str] = []
        self.refused: set[str] = set()
        self.refuse: Callable[[Request], Response] = lambda request: JSONResponse({"error": "token"}, 401)
        self.accept: Callable[[Request], Response] = lambda request: JSONResponse({"token": self.seen[-1]})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.bodies.append(await request.body())
        self.urls.append(str(request.url))
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        token = bearer or request.headers.get("x-api-token", "") or request.query_params.get("access_token", "")
        self.seen.append(token)
        response = self.refuse(request) if token in self.refused else self.accept(request)
        await response(scope, receive, send)


def chunks(*parts: bytes, media_type: str = "application/octet-stream") -> StreamingResponse:
    """Return an answer that is sent in parts, without a content length."""

    async def stream() -> AsyncGenerator[bytes]:
        for part in parts:
            yield part

    return StreamingResponse(stream(), media_type=media_type)


@pytest.fixture
def api() -> API:
    """The provider's API."""
    return API()


class Address:
    """A server that serves the API of the current test: starting a server for each test would take minutes."""

    def __init__(self) -> None:
        self.api = API()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.api(scope, receive, send)


@pytest.fixture(scope="session")
def _own() -> Iterator[tuple[Address, str]]:
    address = Address()
    with running_app(address) as url:
        yield address, url


@pytest.fixture(scope="session")
def _other() -> Iterator[tuple[Address, str]]:
    address = Address()
    with running_app(address) as url:
        yield address, url


@pytest.fixture
def base_url(api: API, _own: tuple[Address, str]) -> str:
    """The API over real HTTP."""
    _own[0].api = api
    return _own[1]


@pytest.fixture
def foreign() -> API:
    """The server of another host."""
    return API()


@pytest.fixture
def foreign_url(foreign: API, _other: tuple[Address, str]) -> str:
    """The other host: another name of this machine, which is not one of the provider's hosts."""
    _other[0].api = foreign
    return _other[1].replace("127.0.0.1", "localhost")


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """One of the two client libraries."""
    return importlib.import_module(request.param)


@pytest.fixture
def clock() -> ManualClock:
    """The clock that decides whether a token is old enough to be invalidated."""
    return ManualClock()


@pytest.fixture
async def broker(clock: ManualClock) -> AsyncGenerator[TokenBroker]:
    """A broker without named providers."""
    async with TokenBroker({}, clock=clock) as broker:
        yield broker


@pytest.fixture
async def http(library: Any, base_url: str) -> AsyncGenerator[Any]:
    """A client of the API that follows redirects."""
    async with library.AsyncClient(base_url=base_url, trust_env=False, follow_redirects=True) as client:
        yield client
