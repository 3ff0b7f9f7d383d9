"""The routes of the program: each uses a broker in another way, and says what it got."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.canary.credentials import API_KEYS, KINDS, TICKET, providers_of, ticket
from tests.canary.program import INJECTED, Program
from tokenmw import TokenBroker, TokenMiddleware, TokenmwError
from tokenmw.providers import FeishuTicket

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

__all__ = ["application"]


def application(program: Program) -> ASGIApp:
    """Make the whole application: the sealing broker in front, the one that does not seal under `/plain`."""
    plain = Starlette(routes=Routes(program, program.plain).all())
    behind = TokenMiddleware(plain, broker=program.plain, inject=INJECTED)
    routes = [*Routes(program, program.sealed).all(), Mount("/plain", behind)]
    app = Starlette(routes=routes, lifespan=program.running)
    return TokenMiddleware(app, broker=program.sealed, inject=INJECTED, missing_key="reject")


class Routes:
    """What is done with one broker."""

    def __init__(self, program: Program, broker: TokenBroker) -> None:
        self._program = program
        self._broker = broker

    def all(self) -> list[Any]:
        """Return the routes."""
        return [
            Route("/tokens/{way}", self.tokens),
            Route("/raise/{way}", self.raise_),
            Route("/half/{way}", self.half),
            Route("/injected", self.injected),
            Route("/api/{kind}/{way}", self.api),
            Route("/operations", self.operations),
            Route("/operations/all", self.all_operations),
            Route("/operations/anew", self.operations_anew),
            Route("/report", self.report),
            WebSocketRoute("/{moment}", self.talk),
        ]

    async def tokens(self, request: Request) -> Response:
        """Resolve the tokens of all kinds whose endpoints answer in one way."""
        resolve, way = request.state.tokens.resolve, request.path_params["way"]
        found = await asyncio.gather(*(resolve(f"{kind}/{way}") for kind in KINDS), return_exceptions=True)
        self._program.say(request.state.tokens, *found)
        return JSONResponse([str(one) for one in found])

    async def raise_(self, request: Request) -> Response:
        """Fail as a handler does that needs a token."""
        await request.state.tokens.resolve(request.path_params["way"].replace(":", "/"))
        return Response()

    async def half(self, request: Request) -> Response:
        """Fail in the middle of an answer."""

        async def body() -> AsyncGenerator[str]:
            yield "half"
            await request.state.tokens.resolve(request.path_params["way"].replace(":", "/"))

        return StreamingResponse(body())

    async def injected(self, request: Request) -> Response:
        """Use what is injected, or not there at all."""
        for name in (*INJECTED, "jwt/grants", "unknown"):
            try:
                self._program.say(request.state.tokens[name])
            except (TokenmwError, KeyError) as error:
                self._program.say(error)
        return JSONResponse({"session": request.state.session_id, "state": str(request.state._state)})

    async def api(self, request: Request) -> Response:
        """Send a request with a token on it, by both clients."""
        kind, way = request.path_params["kind"], request.path_params["way"]
        url = f"http://127.0.0.1:{self._program.ports['grants']}/{way}/{kind}/send?to=all"
        for http in self._program.clients:
            try:
                answer = await http.get(url, auth=self._broker.auth(f"{kind}/grants"), follow_redirects=True)
                self._program.say(f"{answer!r} {answer.request!r}")
            except TokenmwError as error:
                self._program.say(error)
            except (httpx.HTTPError, httpx2.HTTPError) as error:
                # The client's own error, with its own frames, in which the request is.
                self._program.say(*traceback.format_exception(error))
        return Response()

    async def operations(self, _request: Request) -> Response:
        """Call everything that the broker has."""
        await self._operate(self._broker)
        return Response()

    async def all_operations(self, _request: Request) -> Response:
        """Call everything that all brokers have."""
        for broker in self._program.brokers:
            await self._operate(broker)
        await asyncio.to_thread(asyncio.run, self._start_again())
        return Response()

    async def operations_anew(self, _request: Request) -> Response:
        """Call everything that brokers have which know nothing but what is in Redis."""
        for broker in self._program.newcomers():
            async with broker:
                await self._operate(broker)
        return Response()

    async def _start_again(self) -> None:
        """Start in another event loop what is running in this one."""

        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            self._program.say(message)

        try:
            app = TokenMiddleware(Starlette(), broker=self._broker)
            await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        except TokenmwError as error:
            self._program.say(error)

    async def _operate(self, broker: TokenBroker) -> None:
        for call in self._calls(broker):
            try:
                self._program.say(await call())
            except Exception as error:  # noqa: BLE001  whatever it is, its rendering is searched
                self._program.say(error)

    def _calls(self, broker: TokenBroker) -> list[Callable[[], Awaitable[object]]]:
        store = ticket(port=self._program.ports["grants"])
        wrong: Any = broker
        return [
            lambda: broker.hand_in(store, FeishuTicket.grant(TICKET)),
            *(partial(broker.token, f"{kind}/grants") for kind in KINDS),
            *(
                partial(broker.token, one)
                for one in providers_of("grants", port=self._program.ports["grants"]).values()
            ),
            lambda: broker.session_id(API_KEYS["broker"]),
            lambda: broker.reset_session(API_KEYS["reset"].encode()),
            self._invalidate_all(broker),
            lambda: broker.invalidate_provider("wecom/grants"),
            lambda: broker.token("basic/refuses"),
            # And what is not meant: a value in the place of another one.
            lambda: wrong.session_id([API_KEYS["broker"]]),
            lambda: wrong.session_id(API_KEYS["broker"] + "\udc80"),
            lambda: wrong.invalidate(API_KEYS["broker"]),
            lambda: wrong.hand_in(store, TICKET),
        ]

    def _invalidate_all(self, broker: TokenBroker) -> Callable[[], Awaitable[object]]:
        async def invalidate() -> object:
            return [await broker.invalidate(await broker.token(f"{kind}/grants")) for kind in KINDS]

        return invalidate

    async def report(self, _request: Request) -> Response:
        """Say everything that can be said."""
        self._program.report(self._broker)
        return JSONResponse({"status": str(self._broker.status())})

    async def talk(self, websocket: WebSocket) -> None:
        """Fail before or after accepting."""
        if websocket.path_params["moment"] == "after":
            await websocket.accept()
        await websocket.state.tokens.resolve("basic/refuses")
